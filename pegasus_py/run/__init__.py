"""One life of a controller: the only place that awaits it all."""
