"""Remote files as h5py users expect them."""
