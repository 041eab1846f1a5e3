"""Builds the C library of `lopsided.compute.native.run`; all else is in pyproject.toml."""

import runpy
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# Not -ffast-math: infinities and NaN must pass. Linked without OpenMP: the one that torch has loaded is used.
ACCURATE_AND_FAST = ["-O3", "-std=gnu11", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden", "-g0"]
QUIET = ["-Wno-maybe-uninitialized"]  # gcc cannot see that a tile is written as far as it is read


class BuildPlainC(build_ext):
    """A shared library that knows nothing of Python: one file serves every version."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return ext.export_symbols

    def get_ext_filename(self, fullname: str) -> str:
        suffix = ".dll" if sys.platform == "win32" else ".so"
        return fullname.replace(".", "/") + suffix

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == "msvc":
            ext.extra_compile_args = ["/O2", "/std:c11", "/openmp"]
        else:
            openmp = ["-fopenmp-simd" if sys.platform == "darwin" else "-fopenmp"]
            ext.extra_compile_args = ACCURATE_AND_FAST + openmp + QUIET
        ext.define_macros = [("SOURCES", runpy.run_path("src/lopsided/compute/native/sources.py")["digest"]())]
        super().build_extension(ext)


class AnyPython(bdist_wheel):
    """A wheel for every Python 3 of a platform."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


native = Extension(
    "lopsided.compute.native._native",
    ["csrc/lopsided.c"],
    depends=sorted(map(str, Path("csrc").glob("*.[hi]*"))),
    libraries=[] if sys.platform == "win32" else ["m"],
    optional=True,  # without a compiler the installation goes on, and plain torch does the work
)
setup(ext_modules=[native], cmdclass={"build_ext": BuildPlainC, "bdist_wheel": AnyPython})
