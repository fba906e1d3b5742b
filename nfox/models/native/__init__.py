"""A decoder's forward in C++, compiled for the processor of the machine when it is first used."""
