"""Who we are: which ids the host lends us, and the user and mount namespaces all of ours live in.

Everything here happens before any thread exists (the kernel refuses a threaded process a new user
namespace), in the keeper only.
"""
