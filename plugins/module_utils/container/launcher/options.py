# SPDX-License-Identifier: GPL-3.0-or-later
"""Define the command line of ``ns-container`` as one table: of the parser, ``--help``, the manual page and bash completion."""

from __future__ import annotations

from .bundle import Refused

SUMMARY = "containers out of namespaces, one at a time or all of a host"
DESCRIPTION = (
    "A container is a bundle of the OCI runtime specification, config.json in /var/lib/fromscratch/containers/NAME, that "
    "fromscratch.containers has written. This program is its runtime: no daemon is involved, and none of it stays while a "
    "container runs. Where systemd runs the host, each container is the service ns-container@NAME, which start, stop and restart "
    "go by.")
EXITS = (
    ("0", "All went well; of status: the container runs."), ("3", "Of status: the container does not run."),
    ("64", "The command line was not understood."), ("125", "It could not be done: the container does not run, or is not there."),
    ("126", "Of exec: the command cannot be executed."), ("127", "Of exec: the command is not there."),
    ("128+n", "Of exec: the command was ended by the signal n."))
MANY, ONE, COMMAND, TWO = "NAME...", "NAME", "NAME COMMAND [ARGUMENT...]", "SOURCE DESTINATION"

# By verb: its arguments, its options as (letter, word, value, what it says), and what it does.
VERBS = {
    "list": ("", [("", "--json", "", "as JSON")], "Show all containers: state, process, addresses, network, limits."),
    "start": (MANY, [("", "--unit", "", "as the unit of systemd does, in the present cgroup and with the present output")],
              "Start containers in the background."),
    "stop": (MANY, [("", "--unit", "", "as the unit of systemd does")],
             "Send SIGTERM, and SIGKILL after the container's own time."),
    "restart": (MANY, [], "Stop, and start again. The network namespace stays, with all that is in it."),
    "exec": (COMMAND, [
        ("-i", "--interactive", "", "pass standard input on, which is done in any case"),
        ("-t", "--tty", "", "give the command a terminal of the container's own; the default at a terminal"),
        ("-T", "--no-tty", "", "give it none"),
        ("-u", "--user", "USER[:GROUP]", "run it as another user of the container, by name or number"),
        ("-w", "--workdir", "DIR", "run it in this directory of the container; the default is /"),
        ("-e", "--env", "KEY[=VALUE]", "set a variable; without a value, to what it is in the caller's environment, where other "
                                       "users of the host cannot read it as in a command line")],
        "Run a command inside, with the rights that the container has."),
    "logs": (ONE, [("-f", "--follow", "", "go on as more is written"), ("-n", "--lines", "N", "begin with the last N lines")],
             "Show what the container has written."),
    "status": ("[NAME...]", [], "Say whether containers run; by default all."),
    "wait": (ONE, [], "Wait until the container has ended, and print its exit status, or 'ended' where none is known."),
    "cp": (TWO, [], "Copy a file into a container or out of it; the one of the two that is inside is written as NAME:PATH."),
    "namespace": (MANY, [], "Make the network namespaces of containers where they are not there, as a start does."),
}


def parse(words):
    """Return (command, {long option: list of values}, arguments) of a command line. Raise Refused."""
    if not words or words[0] not in VERBS:
        raise Refused(f"{words[0]}: there is no such command" if words else "a command is missing")
    usage, known, _text = VERBS[words[0]]
    found, given, rest = {}, [], words[1:]
    if rest and rest[0].startswith("-"):
        import getopt
        letters = "".join(short[1:] + ":" * bool(value) for short, _long, value, _text in known)
        try:
            given, rest = getopt.getopt(rest, letters, [long[2:] + "=" * bool(value) for _short, long, value, _text in known])
        except getopt.GetoptError as error:
            raise Refused(f"{words[0]}: {error}") from None
    long_of = {short: long for short, long, _value, _text in known}
    for word, value in given:
        found.setdefault(long_of.get(word, word)[2:], []).append(value)
    least = {"": 0, MANY: 1, ONE: 1, COMMAND: 2, TWO: 2}.get(usage, 0)
    most = {"": 0, ONE: 1, TWO: 2}.get(usage)
    if len(rest) < least or (most is not None and len(rest) > most):
        raise Refused(f"usage: ns-container {words[0]} {usage}".rstrip())
    return words[0], found, rest


def synopsis(verb):
    """Return the usage line of a command."""
    usage, known, _text = VERBS[verb]
    words = [f"[{short or long}{' ' + value if value else ''}]" for short, long, value, _text in known if long != "--unit"]
    return " ".join(["ns-container", verb, *words, *[usage] * bool(usage)])


def help_text(verb=None):
    """Return the text of ``--help``, of one command or of all."""
    lines = []
    for command in [verb] if verb else VERBS:
        lines += [synopsis(command), f"    {VERBS[command][2]}"]
        if verb:
            lines += [f"    {', '.join(filter(None, (short, long)))} {value}".rstrip() + f": {text}"
                      for short, long, value, text in VERBS[command][1]]
    return "\n".join([f"ns-container: {SUMMARY}", "", *lines, ""])


def manual():
    """Return the manual page, in man(7) markup."""
    def plain(text):
        """Return text escaped for man(7)."""
        return text.replace("\\", "\\e").replace("-", "\\-")

    lines = ['.TH NS\\-CONTAINER 8 "" "fromscratch.containers" "System administration"', ".SH NAME",
             f"ns\\-container \\- {plain(SUMMARY)}", ".SH SYNOPSIS"]
    for verb in VERBS:
        lines += [".br", plain(synopsis(verb))]
    lines += [".SH DESCRIPTION", plain(DESCRIPTION), ".SH COMMANDS"]
    for verb, (usage, known, text) in VERBS.items():
        lines += [".TP", f".B {plain(verb)} {plain(usage)}".rstrip(), plain(text)]
        for short, long, value, says in known:
            lines += [".RS", ".TP", f".B {plain(', '.join(filter(None, (short, long))))} {plain(value)}".rstrip(),
                      plain(f"{says[0].upper()}{says[1:]}."), ".RE"]
    lines.append(".SH EXIT STATUS")
    for code, text in EXITS:
        lines += [".TP", plain(code), plain(text)]
    return "\n".join([*lines, ".SH SEE ALSO", ".BR nsenter (1),", ".BR unshare (1),", ".BR namespaces (7)", ""])


def completion():
    """Return the bash(1) completion of commands, options and container names."""
    cases = "".join(f"        {verb}) words='{' '.join(word for option in known for word in option[:2] if word)}' ;;\n"
                    for verb, (_usage, known, _text) in VERBS.items() if known)
    return f"""# Completion of bash for ns-container.
_ns_container() {{
    local words=
    if [ "$COMP_CWORD" = 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W '{' '.join(VERBS)} --help' -- "$2")
        return
    fi
    case ${{COMP_WORDS[1]}} in
{cases}    esac
    [ "${{2#-}}" != "$2" ] || words=$(ls /var/lib/fromscratch/containers 2>/dev/null)
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$2")
}}
complete -o default -F _ns_container ns-container
"""
