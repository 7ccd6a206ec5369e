package child

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Verb is the binary's hidden first argument that makes it a child.
const Verb = "librbd-child"

// The files that a child is started with.
const (
	socketFile = 3
	memoryFile = 4
)

// Attach is what a child does first: it finds the socket and the memory that its
// parent gave it. From then on its crash leaves no core. Error: where the
// process is nobody's child.
func Attach(faults Faults) (*Peer, *Memory, error) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return nil, nil, fmt.Errorf("no core dumps: %w", err)
	}
	if kind, err := unix.GetsockoptInt(socketFile, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || kind != unix.AF_UNIX {
		return nil, nil, errors.New("this command is backy's own: it runs librbd for another backy")
	}
	_ = os.WriteFile("/proc/self/comm", []byte("backy-librbd"), 0) // for ps
	unix.CloseOnExec(socketFile)
	unix.CloseOnExec(memoryFile)
	socket := os.NewFile(socketFile, "socket")
	conn, err := net.FileConn(socket)
	if err = errors.Join(err, socket.Close()); err != nil {
		return nil, nil, fmt.Errorf("the parent's socket: %w", err)
	}
	memory, err := openMemory(os.NewFile(memoryFile, "memory"))
	if err != nil {
		return nil, nil, err
	}
	return NewPeer(conn, faults), memory, nil
}
