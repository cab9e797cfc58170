"""How fast a step is, beside the least that memory must do and beside other libraries: the command `sparseopt bench`."""
