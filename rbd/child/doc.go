// Package child runs the same binary once more, as a child process that a
// native library may crash or hang without harm to its parent, and talks to it.
//
// The two ends speak frames over a Unix socket (Peer): either end calls the
// other by a verb, and may do so while it answers a call. Large data goes through
// memory that both have mapped (Memory), never through the socket.
//
// The child has a process group of its own, so that a terminal's Ctrl-C reaches
// the parent alone, and it ends with its parent: the kernel kills it when the
// parent dies, and it exits when the socket ends. What it prints is kept, within
// bounds and without keys, for a report of a crash.
//
// The package knows nothing of Ceph.
package child
