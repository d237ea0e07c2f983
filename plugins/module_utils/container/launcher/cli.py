# SPDX-License-Identifier: GPL-3.0-or-later
"""Run ``ns-container``: one function per command. Each imports only what it needs, to start quickly."""

from __future__ import annotations

import os
import sys

from . import bundle, record
from .bundle import Refused, words
from .options import help_text, parse

USAGE, NOT_RUNNING = 64, 3
TEMPLATE = "/etc/systemd/system/ns-container@.service"


def main(line):
    """Run a command line, given as a list of words. Return the exit status."""
    try:
        if not line or line[0] in ("--help", "-h", "help"):
            sys.stdout.write(help_text())
            return 0 if line else USAGE
        if line[1:2] in (["--help"], ["-h"]):
            sys.stdout.write(help_text(line[0]))
            return 0
        verb, options, arguments = parse(line)
    except (Refused, KeyError) as error:
        sys.stderr.write(f"ns-container: {error}\nTry ns-container --help.\n")
        return USAGE
    try:
        if os.geteuid() != 0:
            raise Refused("it takes root: try sudo")
        return globals()[f"_{verb}"](options, arguments) or 0
    except Refused as error:
        sys.stderr.write(f"ns-container: {error}\n")
        return error.code
    except BrokenPipeError:
        return 1
    except OSError as error:
        sys.stderr.write(f"ns-container: {verb}: {words(error)}\n")
        return Refused.code


def _former(name):
    """Return the script of a container of an earlier release that has not been started since, or None."""
    script = f"{bundle.directory(name)}/container"
    return script if os.path.exists(script) and not os.path.exists(f"{bundle.directory(name)}/config.json") else None


def _unit(name):
    return f"ns-container@{name}.service"


def _by_systemd(options):
    return all(("unit" not in options, os.path.isdir("/run/systemd/system"), os.path.exists(TEMPLATE)))


def _systemctl(verb, names):
    import subprocess
    if subprocess.run(["systemctl", verb, *map(_unit, names)], check=False).returncode:
        raise Refused(f"systemctl {verb} failed: journalctl --unit {_unit(names[0])} may tell why")


def _start(options, names):
    from . import guard, start
    if guard.TOLD in os.environ:
        start.prepare_and_exit(names[0], int(os.environ.pop(guard.TOLD)), "unit" in options)
    for name in names:
        if _former(name):
            raise Refused(f"{name} is of a former release: run the playbook again, which writes its bundle")
        bundle.load(name)
    if _by_systemd(options):
        return _systemctl("start", names)
    return _failed(start.start_all(names, "unit" in options))


def _stop(options, names):
    if _by_systemd(options):
        return _systemctl("stop", names)
    from .stop import patience, stop_all
    return _failed(stop_all({name: 10 if _former(name) else patience(name) for name in names}))


def _failed(failures):
    """Print failures, given by container name, one a line. Return the exit status."""
    for name, text in failures.items():
        sys.stderr.write(f"ns-container: {name}: {text}\n")
    return Refused.code if failures else 0


def _restart(options, names):
    if _by_systemd(options):
        return _systemctl("restart", names)
    return _stop(options, names) or _start(options, names)


def _exec(options, arguments):
    from . import enter, guard
    name, args = arguments[0], arguments[1:]
    if _former(name):
        os.execv(_former(name), [  # noqa: S606 (a program with its arguments, as all of these)
            _former(name), "exec", *args])
    given = options.get("env", [])
    inherited = {each: os.environ[each] for each in ("TERM", *given) if each in os.environ}
    env = [each if "=" in each else f"{each}={inherited[each]}" for each in given if "=" in each or each in inherited]
    config = bundle.load(name)
    enter.running(name)
    guard.own_program(config, sys.argv[1:], inherited)
    terminal = True if "tty" in options else False if "no-tty" in options else None
    user, workdir = (options.get(each, [None])[-1] for each in ("user", "workdir"))
    return enter.run(name, args, env, user, workdir, terminal)


def _status(_options, names):
    code = 0
    for name in names or bundle.names():
        pid = record.running(name)
        if pid:
            sys.stdout.write(f"{name} runs, process {pid}\n")
        else:
            bundle.directory(name)
            ended = _how_it_ended(name)
            sys.stdout.write(f"{name} does not run{f': {ended}' if ended else ''}\n")
            code = NOT_RUNNING
    return code if names else 0


def _how_it_ended(name):
    """Return the last line of the container's init, or "ended"; an empty string where it never started or logs elsewhere."""
    text = record.end_of_log(name, 4096)
    if text is None:
        return ""
    last = (text.splitlines() or [""])[-1]
    return last if last.startswith("ended with status ") else "ended"


def _wait(_options, names):
    from .stop import wait
    bundle.load(names[0])
    wait(names[0])
    sys.stdout.write(f"{(_how_it_ended(names[0]) or 'ended').rpartition(' ')[2]}\n")


def _logs(options, names):
    name, lines = names[0], options.get("lines", ["all"])[-1]
    if lines != "all" and not lines.isdigit():
        raise Refused(f"logs: {lines!r} is no number of lines: give one, or all")
    path = f"{bundle.directory(name)}/log"
    if os.path.isdir("/run/systemd/system"):
        command = ["journalctl", "--unit", _unit(name), "--output", "cat", "--lines", lines, *["--follow"] * ("follow" in options)]
    elif not os.path.exists(path):
        raise Refused(f"there is no log of {name}: it begins with its first start, see ns-container list")
    else:
        command = ["tail", "-n", "+1" if lines == "all" else lines, *["-F"] * ("follow" in options), path]
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606


def _cp(_options, paths):
    from . import copy, guard
    name, path, into = copy.sides(*paths)
    guard.own_program(bundle.load(name), sys.argv[1:], {})
    return copy.copy(name, path, paths[0] if into else paths[1], into)


def _namespace(_options, names):
    from . import namespaces, start
    for name in names:
        with start.Lock(name):
            namespaces.provide(name, *start.ids(bundle.load(name)))


def _list(options, _names):
    from .listing import rows, table
    found = rows(bundle.names())
    if "json" in options:
        import json
        sys.stdout.write(f"{json.dumps(found, indent=2)}\n")
    else:
        sys.stdout.write(table(found))
