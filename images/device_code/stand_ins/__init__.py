"""Stand-ins: small libraries of our own in the place of libraries that an image leaves out.

A program that is linked against a library does not start without it, even if it never calls it. A stand-in has the
name, the SONAME, and the C functions with their versions of the real library; a call of one returns the library's own
status for "not supported" and says so. It is made of the real one's table of symbols alone, in a builder stage:

    python -m images.device_code.stand_ins SITE --version 0.1.0 --made 'GLOB=USED FOR' ... --gone GLOB ...

`made.stand_ins_of` tells which files of an installation are stand-ins. Like all of `images.device_code`, these modules
need the standard library alone, and `compiler` a gcc with the headers of the C library.
"""
