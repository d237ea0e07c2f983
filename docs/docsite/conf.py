# SPDX-License-Identifier: GPL-3.0-or-later
"""How Sphinx makes the site out of what antsibull-docs has written; `make docs` runs both."""

from __future__ import annotations

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

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


class WithoutContents(SphinxPostTransform):
    """Leave out the tables of contents of pages: furo has one beside each page, and shows an error in place of another."""

    default_priority = 1

    def run(self):
        for topic in [topic for topic in self.document.findall(nodes.topic) if "contents" in topic["classes"]]:
            topic.parent.remove(topic)
        for title in self.document.findall(nodes.title):
            title.attributes.pop("refid", None)  # which led there


def setup(app):
    app.add_post_transform(WithoutContents)
