package child

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// words brings errors across as their words alone.
type words struct{}

func (words) Seal(err error) []byte { return []byte(err.Error()) }
func (words) Open(p []byte) error   { return errors.New(string(p)) }

// TestMain also is what the tests' children run.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == Verb {
		os.Exit(childMain())
	}
	os.Exit(m.Run())
}

func childMain() int {
	peer, memory, err := Attach(words{})
	if err != nil {
		println(err.Error())
		return 2
	}
	signal.Ignore(syscall.SIGTERM)
	v := Verbs{}
	Handle(v, "echo", func(_ context.Context, _ *Peer, s string) (string, error) { return s, nil })
	Handle(v, "fail", func(_ context.Context, _ *Peer, s string) (Nothing, error) { return Nothing{}, errors.New(s) })
	Handle(v, "say", func(_ context.Context, _ *Peer, s string) (Nothing, error) {
		print(s)
		return Nothing{}, nil
	})
	Handle(v, "wait", func(ctx context.Context, _ *Peer, _ Nothing) (Nothing, error) {
		<-ctx.Done()
		return Nothing{}, ctx.Err()
	})
	Handle(v, "ask back", func(ctx context.Context, p *Peer, s string) (r string, err error) {
		err = p.Call(ctx, "parent", s, &r)
		return r, err
	})
	Handle(v, "double", func(_ context.Context, _ *Peer, n int) (Nothing, error) {
		p, err := memory.Slot(1, n)
		for i := range p {
			p[i] *= 2
		}
		return Nothing{}, err
	})
	Handle(v, "raise", func(_ context.Context, _ *Peer, s syscall.Signal) (Nothing, error) {
		_ = syscall.Kill(os.Getpid(), s)
		select {}
	})
	Handle(v, "exit", func(_ context.Context, _ *Peer, code int) (Nothing, error) {
		os.Exit(code)
		return Nothing{}, nil
	})
	Handle(v, "die deaf", func(_ context.Context, p *Peer, _ Nothing) (Nothing, error) {
		_, _ = p.conn.Write(make([]byte, 2)) // a frame that ends early
		time.Sleep(50 * time.Millisecond)
		os.Exit(4)
		return Nothing{}, nil
	})
	Handle(v, "babble", func(_ context.Context, p *Peer, _ Nothing) (Nothing, error) {
		_, _ = p.conn.Write(bytes.Repeat([]byte{0xff}, 100))
		select {}
	})
	Handle(v, "limits", func(_ context.Context, _ *Peer, _ Nothing) (uint64, error) {
		var core syscall.Rlimit
		err := syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
		return core.Max, err
	})
	Handle(v, "group", func(_ context.Context, _ *Peer, _ Nothing) (int, error) { return syscall.Getpgrp(), nil })
	peer.Serve(v)
	_ = peer.Run()
	return 0
}

func start(t *testing.T, o Options) *Process {
	t.Helper()
	o.Faults = words{}
	if o.Slots == 0 {
		o.Slots = 2
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func call[R any](t *testing.T, p *Process, verb string, args any) (r R, err error) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = p.Call(t.Context(), verb, args, &r)
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s: no answer", verb)
	}
	return r, err
}

func TestTalk(t *testing.T) {
	p := start(t, Options{})
	long := strings.Repeat("long ", 1<<20)
	for _, s := range []string{"", "a", "\xff\x00", long} {
		if got, err := call[string](t, p, "echo", s); err != nil || got != s {
			t.Errorf("echo of %d bytes: %d bytes, %v", len(s), len(got), err)
		}
	}
	if _, err := call[Nothing](t, p, "fail", "so it is"); err == nil || err.Error() != "so it is" {
		t.Errorf("fail: %v", err)
	}
	if _, err := call[Nothing](t, p, "no such", ""); err == nil || p.Dead() {
		t.Errorf("an unknown verb: %v", err)
	}
	if _, err := call[string](t, p, "echo", 5); err == nil || p.Dead() {
		t.Errorf("arguments of another type: %v", err)
	}
	v := Verbs{}
	Handle(v, "parent", func(_ context.Context, _ *Peer, s string) (string, error) { return s + " back", nil })
	p.Serve(v)
	if got, err := call[string](t, p, "ask back", "ask"); err != nil || got != "ask back" {
		t.Errorf("a call back: %q, %v", got, err)
	}
	if core, err := call[uint64](t, p, "limits", Nothing{}); err != nil || core != 0 {
		t.Errorf("core dumps of %d bytes, %v", core, err)
	}
	if group, err := call[int](t, p, "group", Nothing{}); err != nil || group == syscall.Getpgrp() {
		t.Errorf("process group %d is ours, %v", group, err)
	}
}

// A call that is given up is answered all the same, by who knows what is left of it.
func TestCancel(t *testing.T) {
	p := start(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	if err := p.Call(ctx, "wait", Nothing{}, &Nothing{}); err == nil || err.Error() != context.Canceled.Error() {
		t.Errorf("given up: %v", err)
	}
	if got, err := call[string](t, p, "echo", "on"); err != nil || got != "on" {
		t.Errorf("after that: %q, %v", got, err)
	}
}

func TestMemory(t *testing.T) {
	p := start(t, Options{})
	m := p.Memory
	first, err := m.Take(t.Context())
	if err != nil || first != 0 {
		t.Fatalf("slot %d, %v", first, err)
	}
	second, err := m.Take(t.Context())
	if err != nil || second != 1 {
		t.Fatalf("slot %d, %v", second, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Take(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a third of two: %v", err)
	}
	text := []byte{1, 2, 3, 100}
	if err := m.Put(second, text); err != nil {
		t.Fatal(err)
	}
	if _, err := call[Nothing](t, p, "double", len(text)-1); err != nil {
		t.Fatal(err)
	}
	if err := m.Get(second, text[:1], nil, text[1:]); err != nil || !bytes.Equal(text, []byte{2, 4, 6, 100}) {
		t.Errorf("%v, %v", text, err)
	}
	for _, bad := range [][2]int{{-1, 1}, {2, 1}, {0, -1}, {0, SlotBytes + 1}} {
		if _, err := m.Slot(bad[0], bad[1]); err == nil {
			t.Errorf("slot %d, %d bytes: no error", bad[0], bad[1])
		}
	}
	m.Give(first)
	if again, err := m.Take(t.Context()); err != nil || again != first {
		t.Errorf("given back: slot %d, %v", again, err)
	}
	m.Lose(first)
	m.Lose(second)
	if _, err := m.Take(t.Context()); err == nil {
		t.Error("all are lost: no error")
	}
}

// However a child ends, the call that waits for it ends with why, and the next too.
func TestDeath(t *testing.T) {
	for _, c := range []struct {
		verb string
		args any
		want string
	}{
		{"die deaf", Nothing{}, "librbd ended its process with exit code 4"},
		{"raise", syscall.SIGKILL, "librbd crashed (SIGKILL): somebody killed its process, or the kernel did for want of memory"},
		{"exit", 0, "librbd ended its process with exit code 0"},
		{"exit", 3, "librbd ended its process with exit code 3"},
		{"babble", Nothing{}, "librbd's process says what nobody understands, and was killed: a bad frame of 4294967295 bytes"},
		{"raise", syscall.SIGSTOP, "librbd hung: it gave no sign of life for 1s, and its process was killed"},
	} {
		p := start(t, Options{Patience: time.Second})
		for range 2 {
			if _, err := call[Nothing](t, p, c.verb, c.args); err == nil || err.Error() != c.want {
				t.Errorf("%s %v: %v, want %s", c.verb, c.args, err, c.want)
			}
		}
		if !p.Dead() {
			t.Errorf("%s %v: it lives", c.verb, c.args)
		}
	}
}

// One that cannot be killed is left, and whoever waits for it goes on.
func TestUnkillable(t *testing.T) {
	p := start(t, Options{Patience: 200 * time.Millisecond, dying: 200 * time.Millisecond, kill: func(int) error { return nil }})
	var left *UnkillableError
	_, err := call[Nothing](t, p, "raise", syscall.SIGSTOP)
	if !errors.As(err, &left) || left.Pid != p.Pid() {
		t.Errorf("it stays: %v", err)
	}
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	<-p.reaped
}

// What asks a process to end is for the parent to decide about.
func TestChildOutlivesTerm(t *testing.T) {
	p := start(t, Options{})
	if _, err := call[string](t, p, "echo", "here"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.Pid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if got, err := call[string](t, p, "echo", "still"); err != nil || got != "still" {
		t.Errorf("after SIGTERM: %q, %v", got, err)
	}
}

func TestOutput(t *testing.T) {
	p := start(t, Options{})
	const key = "AQDs0cZoAAAAABAAn2eXvJfWvB4rZVN1w1v2Xg=="
	say := []string{"key = " + key + "\n", "Malformed input: '" + key + "'\n", strings.Repeat("noise\n", 100_000), "the end"}
	for _, s := range say {
		if _, err := call[Nothing](t, p, "say", s); err != nil {
			t.Fatal(err)
		}
	}
	_, err := call[Nothing](t, p, "exit", 1)
	var death *DeathError
	if !errors.As(err, &death) {
		t.Fatal(err)
	}
	said := death.Output
	if strings.Contains(said, key[:30]) || strings.Count(said, "[key]") != 2 {
		t.Errorf("a key: %.200s", said)
	}
	if !strings.HasPrefix(said, "key = ") || !strings.HasSuffix(said, "the end") || len(said) > headKept+tailKept+100 {
		t.Errorf("%d bytes: %.100s … %s", len(said), said, said[max(0, len(said)-20):])
	}
}

func TestRedact(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"nothing of that kind /usr/lib/x86_64-linux-gnu/librbd.so.1", "nothing of that kind /usr/lib/x86_64-linux-gnu/librbd.so.1"},
		{"x AgAAAGhBz1oBAAAAIAAAAA3Xv9RrW8a1lH8c1f0t5Yy2Zl6l3l1m7mWZ0d2u0w== y", "x [key] y"},
		{"secret=abc def", "secret=[key] def"},
		{"Key: abc\nmonkey: 5", "Key: [key]\nmonkey: 5"},
	} {
		if got := Redact(c.text); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestFrames(t *testing.T) {
	for _, f := range []frame{
		{kind: isCall, id: 1, verb: "do", body: []byte("it")},
		{kind: isResult, id: 1<<64 - 1},
		{kind: isAlive, body: make([]byte, 100_000)},
	} {
		p, err := appendFrame(nil, f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := readFrame(bytes.NewReader(p))
		if err != nil || got.kind != f.kind || got.id != f.id || got.verb != f.verb || !bytes.Equal(got.body, f.body) {
			t.Errorf("%v: %v, %v", f.kind, got, err)
		}
		for n := range min(len(p), 100) {
			if _, err := readFrame(bytes.NewReader(p[:n])); err == nil || (err == io.EOF) != (n == 0) {
				t.Errorf("the first %d bytes: %v", n, err)
			}
		}
	}
	if _, err := appendFrame(nil, frame{verb: strings.Repeat("x", 256)}); err == nil {
		t.Error("a verb of 256 bytes: no error")
	}
	huge := binary.LittleEndian.AppendUint32(nil, maxFrame+1)
	if _, err := readFrame(bytes.NewReader(huge)); err == nil {
		t.Error("a huge frame: no error")
	}
	for _, bad := range [][]byte{{9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {10, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0}, {10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7}} {
		if f, err := readFrame(bytes.NewReader(bad)); err == nil {
			t.Errorf("%v: %+v", bad, f)
		}
	}
}

// An end whose other end is gone without a word says so.
func TestPeerEnds(t *testing.T) {
	here, there := net.Pipe()
	p := NewPeer(here, words{})
	ran := make(chan error, 1)
	go func() { ran <- p.Run() }()
	called := make(chan error, 1)
	go func() { called <- p.Call(t.Context(), "x", Nothing{}, &Nothing{}) }()
	if _, err := readFrame(there); err != nil {
		t.Fatal(err)
	}
	if err := there.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-called; !errors.Is(err, ErrEnded) {
		t.Errorf("the call: %v", err)
	}
	if err := <-ran; err != nil {
		t.Errorf("the end: %v", err)
	}
	if err := p.Call(t.Context(), "x", Nothing{}, &Nothing{}); !errors.Is(err, ErrEnded) {
		t.Errorf("a call after the end: %v", err)
	}
}
