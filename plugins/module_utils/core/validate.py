# SPDX-License-Identifier: GPL-3.0-or-later
"""Validate options that several kinds have.

A rule takes the option's name and the value and returns the value in its canonical form, or raises OptionError.
"""

from __future__ import annotations

import os
import re
import shlex

from .errors import OptionError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def text(option, value):
    if not isinstance(value, str):
        raise OptionError(option, value, "it is no string: put it in quotes")
    return value


def thing_name(option, value):
    """The name of a container or a network namespace: it becomes part of paths and of unit names."""
    if value is not None and not NAME.fullmatch(text(option, value)):
        raise OptionError(option, value, "use 1 to 63 letters, digits, '_', '.' and '-', the first a letter or a digit")
    return value


def in_range(option, value, low, high):
    if value is not None and not low <= value <= high:
        raise OptionError(option, value, f"it must be from {low} to {high}")
    return value


def refuse_duplicates(option, values):
    seen = set()
    for value in values:
        if value in seen:
            raise OptionError(option, value, "it is given twice: leave one of them out")
        seen.add(value)


def path(option, value, below=""):
    """An absolute path of plain characters, without ``..``; it becomes part of mount options and of an fstab."""
    if not value.startswith("/") or ".." in value.split("/"):
        raise OptionError(option, value, "it must be an absolute path without '..'")
    if not re.fullmatch(r"[\w/.@+~=-]+", value):
        raise OptionError(option, value, "a path has letters, digits and the characters / . _ @ + ~ = - here, as it becomes "
                          "part of mount options")
    canonical = os.path.normpath(value).replace("//", "/")
    if canonical == below:
        raise OptionError(option, value, f"it must be below {below}")
    return canonical


def tmpfs(option, value):
    """``/path`` or ``/path:mount options``."""
    dest, colon, options = value.partition(":")
    if colon and not re.fullmatch(r"[\w%=]+(,[\w%=]+)*", options):
        raise OptionError(option, value, "after the colon come the options of a tmpfs, such as mode=1777,size=64m")
    return path(option, dest, below="/") + colon + options


def command(option, value):
    """A command with its arguments: a list of them, or one string, which is split as a shell would."""
    if isinstance(value, str):
        try:
            return arguments(option, shlex.split(value))
        except ValueError as error:
            raise OptionError(option, value, f"it cannot be split as a shell would ({error}): give the list of its words") from None
    if not isinstance(value, (list, tuple)):
        raise OptionError(option, value,
                          "it is a list of words, such as [sh, -c, \"echo hello\"], or a string to be split into them")
    for each in value:
        if not isinstance(each, str):
            raise OptionError(option, each, made_of_it(each))
    return arguments(option, value)


def made_of_it(value):
    """What to do about a value that YAML has made something else of than was written: 010 is 8, 1.10 is 1.1 and yes is true."""
    return f"YAML made {type(value).__name__} {value!r} of it, which may not be what was written: put it in quotes, as a string"


def arguments(option, values):
    """A command with its arguments."""
    if not values or not values[0]:
        raise OptionError(option, values, "it needs at least the program to run")
    if any("\0" in each for each in values):
        raise OptionError(option, values, "an argument has no NUL character")
    return tuple(values)


def environment(option, values):
    """Variable names and values, as strings."""
    for key, value in values.items():
        if not isinstance(key, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key):
            raise OptionError(option, key, "the name of a variable has letters, digits and '_', and no digit first")
        if value is None or isinstance(value, (dict, list)):
            raise OptionError(f"{option}.{key}", value, "it needs a string; an empty one is ''")
        if not isinstance(value, str):
            raise OptionError(f"{option}.{key}", value, made_of_it(value))
    return {str(key): str(value) for key, value in values.items()}
