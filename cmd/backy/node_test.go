package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nodeMain is a node's first process: it connects the node's network to the
// wire and runs backy.
func nodeMain() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
	}
	fail(loopbackUp())
	sockets, err := os.ReadDir(os.Args[1])
	fail(err)
	for _, s := range sockets {
		l, err := net.Listen("tcp", "127.0.0.1:"+s.Name())
		fail(err)
		go func() {
			for {
				c, err := l.Accept()
				fail(err)
				far, err := net.Dial("unix", filepath.Join(os.Args[1], s.Name()))
				fail(err)
				go pass(c, far, func() {})
				go pass(far, c, func() {})
			}
		}()
	}
	cmd := exec.Command("backy", os.Args[2:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run() // the exit code tells
	os.Exit(cmd.ProcessState.ExitCode())
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("the loopback device: %w", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("the loopback device: %w", err)
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr)
}

// pass hands over what comes from one connection to another until either ends.
func pass(from io.Reader, to io.WriteCloser, before func()) {
	defer to.Close()
	p := make([]byte, 64<<10)
	for {
		n, err := from.Read(p)
		before()
		if n > 0 {
			if _, err := to.Write(p[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
