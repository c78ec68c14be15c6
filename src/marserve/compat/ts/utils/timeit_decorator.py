"""``timeit``: prints how long a function takes."""

from mms.utils.timeit_decorator import timeit

__all__ = ["timeit"]
