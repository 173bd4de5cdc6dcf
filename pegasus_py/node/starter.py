"""The quick way of the node-side script to start jobs: `posix_spawn` instead of a shell's forks.

protocol.py sends this text and runner.sh runs it, where a node has an interpreter for it. It takes `start`, `clear`,
`read` and `bye` from the channel, does with the spool exactly what runner.sh does, and ends after `bye` and at the
first request of another kind, which it hands back to the script. It must never read more of the channel than one
request.

It has to run with version 3.8, and it costs each sub-node some milliseconds, so it imports next to nothing: what it
needs of `os` is in `posix`. The text is in the command line, where it must not have the interpreter's name: a job may
end all that has (`pkill -f`).
"""

import posix
import sys
import time

INLINE = 8192
BLOCK = 1 << 16
HANDED_BACK = 3
"""The descriptor on which the script is told what is left for it to do."""
BY_DEFAULT = (1, 2, 3, 13, 25)
"""HUP, INT, QUIT, PIPE and XFSZ: the script or the interpreter ignores some. `import signal` would cost 4 ms."""


CHILD_ENDED = 17
"""CHLD."""
OWNERS = 0o600
"""Bits of a umask that take a file of mode 0600 from its owner."""
ENDED_BEFORE = 128 + 15
"""As if TERM had met it before its first command."""
TRIALS = 8
"""Jobs whose start time the clock must have told as /proc does before it alone is believed."""
LINUX = "/proc/self/timens_offsets"
"""Only there where a kernel is Linux itself, and counts the start of a process by that clock (version 5.6)."""
NEVER = -(10**9)
LEFT = b"left"
"""Handed back when all has been taken leave of: the script ends, too."""


class Starter:
    """`spool` ends with a slash. `owner` is the script's pid and start time, as in its own markers."""

    def __init__(
        self, spool: bytes, ctl: bytes, queue: bytes, boot: bytes, machine: bytes, owner: bytes, epoch: bytes
    ) -> None:
        self.spool = spool
        self.ctl = ctl
        self.queue = queue
        self.head = b"start %b %b - - %b %b" % (boot, machine, owner, epoch)
        self.epoch = int(epoch)
        self.tail = b"%d %b ." % (posix.getpid(), started(posix.getpid()))
        self.count = 0
        self.agreed = 0 if posix.access(LINUX, posix.F_OK) else NEVER
        """How many start times clock and /proc told alike; far below 0 where they need not, or once did not."""
        self.unsaved: list[tuple[bytes, int]] = []
        self.env = dict(posix.environ)
        self.null = posix.open(b"/dev/null", posix.O_RDONLY)
        self.base = b""
        """The directory of all spools, if it is to be removed when it is empty."""

    def serve(self) -> bytes:
        """Answer requests; returns the line of one that is not for us, or nothing at the end of the channel."""
        data = b""
        while True:
            line, newline, rest = data.partition(b"\n")
            if not newline:
                more = posix.read(0, BLOCK)
                if not more:
                    return b""
                data += more
                continue
            verb, *words = line.split(b" ")
            if verb == b"start":
                # Lines are counted for the shell, which reads them so; one more line break follows the last.
                size = int(words[2])
                whole = size + (words[1] != b"0")
                parts = [rest]
                missing = whole - len(rest)
                while missing > 0:
                    parts.append(posix.read(0, min(missing, 1 << 20)))
                    if not parts[-1]:
                        return b""
                    missing -= len(parts[-1])
                rest = b"".join(parts)
                self.start(words[0], rest[:size], words[3], words[4:])
                data = rest[whole:]
                if self.unsaved:
                    self.save()
            elif verb == b"clear":
                self.clear(words)
                say(b"cleared\n")
                data = rest
            elif verb == b"read":
                self.read(*words)
                data = rest
            elif verb == b"bye":
                self.leave()
                say(b"bye\n")
                return LEFT
            elif rest:
                raise ValueError(line)
            else:
                return line

    def start(self, name: bytes, text: bytes, deadline: bytes, clear: "list[bytes]") -> None:
        if clear:
            self.clear(clear)
        try:
            # Opened, not only looked for: NFS asks the server then.
            posix.close(posix.open(self.ctl, posix.O_RDONLY))
        except OSError:
            say(b"overtaken %d\n" % self.highest_epoch())
            return
        self.count += 1
        path = self.spool + name
        try:
            marker = posix.open(
                path + b".job", posix.O_RDWR | posix.O_APPEND | posix.O_CREAT | posix.O_EXCL, 0o600
            )
        except FileExistsError:
            say(b"exists %b\n" % name)
            return
        except OSError as error:
            say(b"refused %b the start marker cannot be made: %b\n" % (name, why(error)))
            return
        out = -1
        try:
            # The script counts its own starts; a letter tells these from them.
            mark = b"%b s%d %b\n" % (self.head, self.count, self.tail)
            reason = write(marker, mark)
            if reason:
                self.give_up(name, marker, b"the start marker cannot be written: " + reason)
                return
            # Whoever found the marker while it was empty may have put a fence there, and even cleared it away since.
            if posix.pread(marker, len(mark), 0) != mark or not posix.fstat(marker).st_nlink:
                say(b"exists %b\n" % name)
                return
            reason = self.write_text(path + b".sh", text)
            if reason:
                self.give_up(name, marker, b"the command cannot be written: " + reason)
                return
            if deadline != b"-" and uptime() > int(deadline):
                self.give_up(name, marker, b"the request to start it came too late")
                return
            try:
                out = posix.open(path + b".out", posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT, 0o600)
                # Whoever ends it before it has a name puts a line behind ours, then removes the text.
                barred = end_of(marker) != len(mark)
                before = ticks()
                pid = 0 if barred else self.spawn(name, path + b".sh", out)
            except OSError as error:
                self.give_up(name, marker, b"it cannot be started: " + why(error))
                return
            torn = b""
            if barred:
                status = ENDED_BEFORE
            else:
                torn = write(marker, b"pid %d %b .\n" % (pid, self.start_of(pid, before, ticks())))
                status = posix.waitpid(pid, 0)[1]
                status = (
                    128 + posix.WTERMSIG(status) if posix.WIFSIGNALED(status) else posix.WEXITSTATUS(status)
                )
            # A part of what was not taken may be there.
            if write(marker, b"%bexit %d .\n" % (b"\n" if torn else b"", status)):
                self.unsaved.append((name, status))
            self.tell_exit(name, status, end_of(out))
        finally:
            posix.close(marker)
            if out >= 0:
                posix.close(out)

    def start_of(self, pid: int, before: int, after: int) -> bytes:
        """The start time of a process that was made between these two ticks of the clock.

        Where both are the same it is known. To ask /proc costs a tenth of all that is done here for a short job.
        """
        if before != after:
            return started(pid)
        if self.agreed >= TRIALS:
            return b"%d" % after
        found = started(pid)
        # A wrong time would make a stranger of the job.
        self.agreed += 1 if found == b"%d" % after else NEVER
        return found

    def spawn(self, name: bytes, script: bytes, out: int) -> int:
        self.env[b"PEGASUS_JOB_ID"] = name.partition(b".")[0]
        self.env[b"PEGASUS_ATTEMPT"] = name + b"." + self.queue
        return posix.posix_spawn(
            b"/bin/sh",
            (b"/bin/sh", script),
            self.env,
            file_actions=(
                (posix.POSIX_SPAWN_DUP2, self.null, 0),
                (posix.POSIX_SPAWN_DUP2, out, 1),
                (posix.POSIX_SPAWN_DUP2, out, 2),
            ),
            setpgroup=0,
            setsigdef=BY_DEFAULT,
        )

    def write_text(self, path: bytes, text: bytes) -> bytes:
        """The reason why it cannot be written, or nothing."""
        try:
            file = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
        except OSError as error:
            return why(error)
        try:
            return write(file, text)
        finally:
            posix.close(file)

    def give_up(self, name: bytes, marker: int, reason: bytes) -> None:
        """The job's text has not run and never will; leaves no marker, or one that says so."""
        write(marker, b"\nrefused .\n")
        self.clear([name])
        say(b"refused %b %b\n" % (name, reason))

    def clear(self, names: "list[bytes]") -> None:
        for name in names:
            path = self.spool + name
            remove(path + b".sh")
            remove(path + b".out")
            # Few have one, and to fail costs more than to look.
            if posix.access(path + b".cancel", posix.F_OK):
                remove(path + b".cancel")
            # The marker goes last: as long as anything is left, the attempt has not been forgotten.
            remove(path + b".job")

    def leave(self) -> None:
        """Take this runner's word from it, and if no other has one and nothing is left of any job, the whole spool."""
        remove(self.ctl)
        try:
            names = posix.listdir(self.spool)
            if any(name.startswith(b"ctl.") or name[:1].isdigit() for name in names):
                return
            # A newer run that is about to put its own word there.
            if self.highest_epoch() > self.epoch:
                return
            for name in names:
                if name.startswith((b"epoch.", b"since.")):
                    remove(self.spool + name)
            posix.rmdir(self.spool)
            if self.base:
                posix.rmdir(self.base)
        except OSError:
            # Another is at the same, or there is more that is not ours.
            pass

    def tell_exit(self, name: bytes, status: int, size: int) -> None:
        if not size:
            say(b"exit %b %d 0 0\n" % (name, status))
            return
        if size <= INLINE:
            # A process left behind may still be writing.
            data = self.beginning(name, size)
            say(b"exit %b %d %d %d\n%b" % (name, status, len(data), len(data), data))
        else:
            say(b"exit %b %d %d -\n" % (name, status, size))

    def read(self, name: bytes, offset: bytes, length: bytes) -> None:
        """In pieces: a megabyte at once would be fresh memory each time, which costs more than to read it."""
        at = int(offset)
        try:
            file = posix.open(self.spool + name + b".out", posix.O_RDONLY)
        except OSError:
            say(b"data %b 0\n" % name)
            return
        try:
            end = max(at, min(at + int(length), posix.fstat(file).st_size))
            say(b"data %b %d\n" % (name, end - at))
            while at < end:
                # What a process left behind has cut off since then is as empty as a hole. So many bytes must come.
                part = posix.pread(file, min(BLOCK, end - at), at) or bytes(min(BLOCK, end - at))
                write(1, part)
                at += len(part)
        finally:
            posix.close(file)

    def beginning(self, name: bytes, size: int) -> bytes:
        try:
            file = posix.open(self.spool + name + b".out", posix.O_RDONLY)
        except OSError:
            return b""
        try:
            return posix.pread(file, size, 0)
        finally:
            posix.close(file)

    def save(self) -> None:
        """Exit statuses that a full disk did not take, tried again."""
        left = []
        for name, status in self.unsaved:
            try:
                marker = posix.open(self.spool + name + b".job", posix.O_WRONLY | posix.O_APPEND)
            except FileNotFoundError:
                continue
            except OSError:
                left.append((name, status))
                continue
            if write(marker, b"\nexit %d .\n" % status):
                left.append((name, status))
            posix.close(marker)
        self.unsaved = left

    def highest_epoch(self) -> int:
        found = [self.epoch]
        try:
            names = posix.listdir(self.spool)
        except OSError:
            names = []
        for name in names:
            kind, _, number = name.partition(b".")
            if kind == b"epoch" and number.isdigit():
                found.append(int(number))
        return max(found)


def started(pid: int) -> bytes:
    """A process's start time, which tells it from others that were given the same number."""
    file = posix.open("/proc/%d/stat" % pid, posix.O_RDONLY)
    try:
        return posix.read(file, 4096).rpartition(b")")[2].split()[19]
    finally:
        posix.close(file)


def ticks() -> int:
    """Now, in hundredths of a second since the machine was started, as Linux counts the start of a process."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10_000_000


def uptime() -> int:
    """Now, in hundredths of a second, by the clock that the script tells the controller of and that deadlines are of.

    In some containers (lxcfs) it is the container's own, and not that of `ticks`. Where it cannot be told any more, all
    comes too late.
    """
    try:
        file = posix.open("/proc/uptime", posix.O_RDONLY)
        try:
            return int(posix.read(file, 64).split()[0].replace(b".", b""))
        finally:
            posix.close(file)
    except (OSError, ValueError, IndexError):
        return sys.maxsize


def end_of(file: int) -> int:
    """Its size. Where an appending descriptor stands matters to nobody; fstat makes an object of twenty numbers."""
    return posix.lseek(file, 0, 2)


def write(file: int, data: bytes) -> bytes:
    """All of it; the reason why it cannot be written, or nothing."""
    while data:
        try:
            data = data[posix.write(file, data) :]
        except OSError as error:
            return why(error)
    return b""


def remove(path: bytes) -> None:
    """If it can be: what has gone already, or cannot go, is no fault."""
    try:
        posix.unlink(path)
    except OSError:
        pass


def say(data: bytes) -> None:
    """To the controller. Should it be gone, the end of the channel will tell."""
    write(1, data)


def why(error: OSError) -> bytes:
    return (error.strerror or "unknown reason").encode("ascii", "replace")


def encode(argument: str) -> bytes:
    """As os.fsencode, for an argument."""
    return argument.encode(sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())


def ignores(number: int) -> bool:
    """Whether this process was started with that signal ignored."""
    file = posix.open("/proc/self/status", posix.O_RDONLY)
    try:
        mask = posix.read(file, 8192).partition(b"SigIgn:")[2].split()[0]
    finally:
        posix.close(file)
    return bool(int(mask, 16) >> (number - 1) & 1)


def rename() -> None:
    """For `ps` and `killall`, which otherwise take it for somebody's program."""
    try:
        file = posix.open("/proc/self/comm", posix.O_WRONLY)
    except OSError:
        return
    write(file, b"pegasus")
    posix.close(file)


def main() -> None:
    spool, ctl, queue, boot, machine, owner, epoch, umask, ctype, base = map(encode, sys.argv[1:])
    starter = Starter(spool, ctl, queue, boot, machine, owner, epoch)
    starter.base = base
    # The interpreter sets this variable in a locale of plain ASCII.
    starter.env.pop(b"LC_CTYPE", None)
    if ctype:
        starter.env[b"LC_CTYPE"] = ctype[1:]
    if b"_" in starter.env:
        starter.env[b"_"] = b"/bin/sh"
    # The jobs' own; what is made here says which mode it wants.
    posix.umask(int(umask, 8))
    # An interpreter without the call or the clock, one that could not learn how a job ended, or could not use the
    # files that it makes: the script can do all of it.
    if not hasattr(posix, "posix_spawn") or ignores(CHILD_ENDED) or int(umask, 8) & OWNERS:
        return
    try:
        ticks()
    except (AttributeError, OSError):
        return
    rename()
    posix.set_inheritable(HANDED_BACK, False)
    # Until this is said the script goes on without us.
    posix.write(HANDED_BACK, b"ready\n")
    request = starter.serve()
    unsaved = b" ".join(b"%b %d" % each for each in starter.unsaved)
    posix.write(HANDED_BACK, b"%b\n%b\n" % (unsaved, request))


if __name__ == "__main__":
    main()
    # Without the interpreter's clearing up, which takes 2 ms.
    posix._exit(0)
