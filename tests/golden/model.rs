//! Oracle A: the network.
