"""The command `sparseopt bench`: the speed of a step, compared with the memory's limit and with other libraries."""
