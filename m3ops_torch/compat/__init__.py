"""The ops under the names, signatures and result types of other libraries."""
