# SPDX-License-Identifier: GPL-3.0-or-later
"""What the operation for a file shows does what applying it does, for content and names that nobody has thought of."""

from __future__ import annotations

import stat

import pytest

from ansible_collections.fromscratch.containers.plugins.module_utils.core.operations import WriteFile

from .twins import twins

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(content=st.one_of(st.binary(), st.text("EOF_\n'$\\ ").map(str.encode)), name=st.text("ab '\"$-\\;", min_size=1))
def test_any_file(tmp_path_factory, content, name):
    found = twins(tmp_path_factory.mktemp("any"), lambda top: WriteFile(f"{top}/{name}", content, 0o600))
    assert found == {name: (oct(stat.S_IFREG | 0o600), content)}
