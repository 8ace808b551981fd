"""Operators that the converter to ONNX gets wrong or does not know, and equal ones that it converts. One file each."""

from segslim.deployment.convertible.adaptive_pooling import inexact_adaptive_pooling_replaced
from segslim.deployment.convertible.transposed_convolution import output_size_replaced
from segslim.deployment.convertible.unpooling import unconvertible_unpooling_replaced

__all__ = ["REPLACEMENTS"]

#: Contexts within which a network is traced.
REPLACEMENTS = (inexact_adaptive_pooling_replaced, unconvertible_unpooling_replaced, output_size_replaced)
