"""The command `sparseopt bench`: the speed of a step, compared with a reference loop and with other libraries."""
