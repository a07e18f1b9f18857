"""Work that may never end, in a process that the kernel ends when it computes too long."""
