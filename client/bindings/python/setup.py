"""The one thing that pyproject.toml cannot say: _abi.py is made of kith.h."""
from setuptools import setup

setup(cffi_modules=["abi_build.py:ffi"])
