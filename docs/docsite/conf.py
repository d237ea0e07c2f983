# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the site out of what antsibull-docs has written; `make docs` runs both."""

from __future__ import annotations

project = "fromscratch.containers"
author = "The fromscratch.containers engineers"
extensions = ["sphinx_antsibull_ext"]
html_theme = "furo"
html_title = project
html_show_copyright = html_copy_source = False
highlight_language = "YAML+Jinja"

# Labels of ansible-core's own documentation, which stay plain text: nothing is fetched while building.
nitpicky = True
nitpick_ignore = [("std:ref", "common_return_values"), ("std:ref", "ansible_configuration_settings"),
                  ("std:ref", "action_plugins"), ("envvar", "ANSIBLE_PIPELINING")]
