"""Templates: exact, undefined names are errors, and nothing harms the controller."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegasus_py.core.model import SubNode, Task
from pegasus_py.core.template import merge_params, render, undefined_names
from pegasus_py.errors import BadInput, Place

PLACE = Place("queue.yaml", 3, 5)
PARAMS = (("model", "org/name"), ("bs", "08"), ("words", "a b c"), ("tricky", "{{ bs }} it's <&>"))


def rendered(text: str) -> str:
    return render(text, PARAMS, PLACE)


def refusal(text: str) -> str:
    with pytest.raises(BadInput) as caught:
        rendered(text)
    message = str(caught.value)
    assert message.startswith("queue.yaml:3:5: ") and "\n" not in message and len(message) < 400
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ${x} $(y) {z} %d 'q'\n\n", "plain ${x} $(y) {z} %d 'q'\n\n"),
        ('{{ model | replace("/", "--") }}', "org--name"),
        ("x {{ bs }}\n\n", "x 08\n\n"),
        ("{{ '{{' }}", "{{"),
        ("{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("echo ${#x} {{ bs }} ${#list[@]}", "echo ${#x} 08 ${#list[@]}"),
        ("{# not a comment #}{{ bs }}", "{# not a comment #}08"),
        ("{{ tricky }}", "{{ bs }} it's <&>"),
        ("{{ tricky | q }} {{ bs | q }}", "'{{ bs }} it'\"'\"'s <&>' 08"),
        ("a\r\nb\r{{ bs }}\n", "a\r\nb\r08\n"),
        ("{{ bs | int * 2 }} {{ bs | int + 1 }} {{ 7 // 2 }} {{ 2 ** 10 }}", "16 9 3 1024"),
        ("{{ model ~ '-' ~ 3 }} {{ model + '!' }}", "org/name-3 org/name!"),
        ("{% for w in words.split() %}{{ loop.index }}{{ w }} {% endfor %}", "1a 2b 3c "),
        ("{% for i in range(3) %}{{ i }}{% endfor %}", "012"),
        ("{% if bs == '08' %}yes{% elif true %}no{% else %}never{% endif %}", "yes"),
        ("{% set x = model.split('/') %}{{ x[1] }}", "name"),
        ("{{ {'08': 'small', '64': 'large'}[bs] }}", "small"),
        ("{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %}", "1234"),
        ("{{ nope | default('there') }} {{ 'a' if nope is defined else 'b' }}", "there b"),
        ("{{ words.split() | map('upper') | join(',') }}", "A,B,C"),
        ("{{ '%03d' | format(bs | int) }} {{ 2.345 | round(1) }}", "008 2.3"),
        ("{{ words | upper }} {{ words | length }}", "A B C 5"),
    ],
)
def test_renders(text: str, expected: str) -> None:
    assert rendered(text) == expected


def test_an_undefined_name_is_an_error_that_says_what_there_is() -> None:
    says = "'modle' is undefined; defined here: bs, model, tricky, words"
    assert says in refusal("x {{ modle }}")
    assert says in refusal("{% if modle %}x{% endif %}")
    assert "no attribute 'size'" in refusal("{{ model.size }}")


def test_bad_syntax_is_told_with_the_line_of_a_script() -> None:
    assert "template: unexpected end" in refusal("{{ model")
    assert "line 3 of the template: " in refusal("a\nb\n{% if %}\n")
    assert "every parameter is a text" in refusal("{{ bs + 1 }}")
    assert "division by zero" in refusal("{{ 1 / 0 }}")


@pytest.mark.parametrize(
    "text",
    [
        "{{ 9 ** (9 ** 9) }}",
        "{{ 2 ** 99999 }}",
        "{{ 10 ** 1000 * 10 ** 1000 }}",
        "{{ 'a' * 10 ** 9 }}",
        "{{ 10 ** 9 * 'a' }}",
        "{{ [1] * 10 ** 9 }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% for i in range(9999) %}{{ 'a' * 1000 }}{% endfor %}",
        "{% set a = 'a' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
        "{% set a = 'a' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
        "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a == a }}",
        "{% set a = [1] %}" + "{% set a = {1: a, 2: a} %}" * 60 + "{{ a | length }}",
        "{% set a = [1] %}" + "{% set a = (a, a) %}" * 60 + "{{ a | length }}",
        "{% set a = [1] %}" + "{% set a = a + a %}" * 60 + "{{ a | length }}",
        "{% set a = 'a' * 2000000 %}{{ [a, a, a] | join }}",
        "{% set a = 'a' * 20000 %}{{ a | replace('a', a) }}",
        "{{ 'a'.ljust(10 ** 9) }}",
        "{{ 'a' | center(10 ** 9) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%*d' | format(1000000000, 1) }}",
        "{{ 1 | round(10 ** 9, 'ceil') }}",
        "{% macro m(n) %}{{ m(n) }}{{ m(n) }}{% endmacro %}{{ m(1) }}",
        "{% set x %}{% for i in range(9999) %}{{ words }}{% endfor %}{% endset %}",
        "{% for w in words.split() recursive %}{{ loop(words) }}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if 1 %}" * 5000 + "{% endif %}" * 5000,
        "{{ " * 5000,
    ],
)
def test_what_costs_too_much_is_refused(text: str) -> None:
    refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ words['__class__'] }}",
        "{{ words | attr('__class__') }}",
        "{{ [words] | map(attribute='__class__') | join }}",
        "{{ words.format.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ self }}",
        "{{ range }}",
        "{{ range.__globals__ }}",
        "{{ lipsum }}",
        "{{ cycler('a') }}",
        "{{ namespace(a=1) }}",
        "{{ dict(a=1) }}",
        "{% include '/etc/passwd' %}",
        "{% extends 'x' %}",
        "{% import 'x' as y %}",
        "{% autoescape true %}{{ '<' }}{% endautoescape %}",
        "{{ words.split().append('x') }}",
        "{{ words.split() }}",
        "{{ none }}",
    ],
)
def test_what_reaches_out_is_refused(text: str) -> None:
    refusal(text)


@given(st.text(), st.text())
@settings(max_examples=200, deadline=None)
def test_values_and_text_come_out_as_they_went_in(value: str, text: str) -> None:
    text = text.replace("{", "(")
    assert render(f"{text}{{{{ x }}}}{text}", {"x": value}, PLACE) == f"{text}{value}{text}"
    assert render(text, {}, PLACE) == text


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20))
@settings(max_examples=40, deadline=None)
def test_q_makes_one_word_for_the_shell(value: str) -> None:
    command = render("printf %s {{ x | q }}", {"x": value}, PLACE)
    assert (
        subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True).stdout == value.encode()
    )


@given(st.text(st.sampled_from("{}%#| abi'()[]\n.~*"), max_size=30))
@settings(max_examples=300, deadline=None)
def test_any_template_renders_or_is_refused(text: str) -> None:
    try:
        render("{{ a }}" + text, {"a": "b"}, PLACE)
    except BadInput as error:
        assert error.place == PLACE


def test_undefined_names_are_those_that_are_needed() -> None:
    assert undefined_names("plain") == set()
    text = "{{ a }}{% set b = 1 %}{{ b }}{% for i in range(3) %}{{ c | q }}{{ i }}{% endfor %}"
    assert undefined_names(text) == {"a", "c"}
    assert undefined_names("{% if x is defined %}{{ x }}{% endif %}{{ y | default('') }}{{ z }}") == {"z"}
    with pytest.raises(BadInput, match=r"^queue\.yaml:3:5: "):
        undefined_names("{{", PLACE)


def test_a_name_of_both_host_and_entry_is_an_error_that_names_both() -> None:
    subnode = SubNode("n1/gpu0", "n1", (("hostname", "n1"), ("gpu", "gpu0")))
    assert merge_params(subnode, Task("x", (("bs", "8"),))) == (
        ("hostname", "n1"),
        ("gpu", "gpu0"),
        ("bs", "8"),
    )
    with pytest.raises(
        BadInput, match=r"^queue\.yaml:3:5: the parameter 'gpu' .* by this entry and by the host n1/gpu0"
    ):
        merge_params(subnode, Task("x", (("gpu", "1"),), place=PLACE))


def test_plain_text_needs_no_jinja2() -> None:
    code = (
        "import sys; from pegasus_py.core.template import *; from pegasus_py.errors import Place\n"
        "assert render('a {b} %s', {}, Place('q')) == 'a {b} %s' and not undefined_names('x')\n"
        "assert 'jinja2' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
