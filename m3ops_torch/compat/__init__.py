"""The ops under the names, signatures and result types of other libraries."""

from m3ops_torch.compat import vllm as vllm
