"""A plugin of pytest for Triton's interpreter: its functions take the place of the language's once, and for good.

The interpreter itself does so anew at each call of a function within a kernel, which takes a third of the time.
"""

from types import SimpleNamespace

import triton.language as tl
from triton.runtime import interpreter

interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
interpreter._patch_lang = lambda fn: interpreter._LangPatchScope()
