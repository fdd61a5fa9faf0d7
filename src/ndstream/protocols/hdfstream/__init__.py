"""HDF5 over HTTP in msgpack, as the hdfstream clients and servers in the field speak it."""
