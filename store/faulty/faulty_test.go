package faulty_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"
	"testing"

	"backy/store"
	"backy/store/backendtest"
	"backy/store/faulty"
	"backy/store/mem"
)

var (
	_ store.Backend = (*faulty.Faulty)(nil)
	_ store.Syncer  = (*faulty.Faulty)(nil)
)

func TestNoFaultsChangeNothing(t *testing.T) {
	backendtest.Run(t, func(*testing.T) store.Backend { return faulty.New(mem.New(), nil) })
}

func TestWhichCallsAreStruck(t *testing.T) {
	for _, tc := range []struct {
		fault faulty.Fault
		want  string // of the puts a/0 a/1 b/0 a/2 b/1 a/3: x where it fails
	}{
		{faulty.Fault{Call: faulty.Put}, "x....."},
		{faulty.Fault{}, "x....."},
		{faulty.Fault{Call: faulty.Get}, "......"},
		{faulty.Fault{Call: faulty.Put, At: 1}, ".x...."},
		{faulty.Fault{Call: faulty.Put, At: 5}, ".....x"},
		{faulty.Fault{Call: faulty.Put, At: 6}, "......"},
		{faulty.Fault{Call: faulty.Put, Prefix: "a/"}, "x....."},
		{faulty.Fault{Call: faulty.Put, Prefix: "b/"}, "..x..."},
		{faulty.Fault{Call: faulty.Put, Prefix: "a/", At: 2}, "...x.."},
		{faulty.Fault{Call: faulty.Put, At: 1, Times: 1}, ".x...."},
		{faulty.Fault{Call: faulty.Put, At: 1, Times: 2}, ".xx..."},
		{faulty.Fault{Call: faulty.Put, Prefix: "a/", At: 1, Times: 2}, ".x.x.."},
		{faulty.Fault{Call: faulty.Put, At: 2, Times: faulty.Always}, "..xxxx"},
		{faulty.Fault{Prefix: "b/", Times: faulty.Always}, "..x.x."},
	} {
		tc.fault.Err = syscall.EIO
		f := faulty.New(mem.New(), faulty.Plan{tc.fault})
		got, struck := "", 0
		for _, key := range []string{"a/0", "a/1", "b/0", "a/2", "b/1", "a/3"} {
			switch err := f.Put(t.Context(), key, []byte("x")); {
			case err == nil:
				got += "."
			case errors.Is(err, syscall.EIO):
				got += "x"
				struck++
			default:
				t.Fatal(err)
			}
		}
		if got != tc.want || f.Struck() != struck || f.Calls(faulty.Put) != 6 || f.Calls(faulty.Any) != 6 || f.Calls(faulty.Get) != 0 {
			t.Errorf("%+v: %s, want %s; %d struck of %d", tc.fault, got, tc.want, f.Struck(), f.Calls(faulty.Put))
		}
	}
}

func TestFirstFaultOfThePlanCounts(t *testing.T) {
	f := faulty.New(mem.New(), faulty.Plan{{At: 1, Err: syscall.EIO}, {Times: 3, Err: syscall.ENOSPC}})
	for i, want := range []error{syscall.ENOSPC, syscall.EIO, syscall.ENOSPC, nil} {
		if err := f.Put(t.Context(), fmt.Sprint(i)); !errors.Is(err, want) {
			t.Errorf("put %d: %v, want %v", i, err, want)
		}
	}
}

func TestErrors(t *testing.T) {
	old := []byte("old")
	for _, tc := range []struct {
		name  string
		fault faulty.Fault
		call  func(context.Context, store.Backend) error
		holds []string // afterwards
	}{
		{"put stores nothing", faulty.Fault{Call: faulty.Put}, put("new"), []string{"old"}},
		{"put stores all", faulty.Fault{Call: faulty.Put, Done: true}, put("new"), []string{"old", "new"}},
		{"delete does nothing", faulty.Fault{Call: faulty.Delete}, remove("old"), []string{"old"}},
		{"delete removes", faulty.Fault{Call: faulty.Delete, Done: true}, remove("old"), nil},
		{"get", faulty.Fault{Call: faulty.Get}, get("old"), []string{"old"}},
		{"list", faulty.Fault{Call: faulty.List}, list, []string{"old"}},
		{"sync", faulty.Fault{Call: faulty.Sync}, sync("old"), []string{"old"}},
	} {
		below := mem.New()
		if err := below.Put(t.Context(), "old", old); err != nil {
			t.Fatal(err)
		}
		tc.fault.Err = syscall.EIO
		f := faulty.New(below, faulty.Plan{tc.fault})
		if err := tc.call(t.Context(), f); !errors.Is(err, syscall.EIO) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if got := keys(t, below); fmt.Sprint(got) != fmt.Sprint(set(tc.holds)) {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.holds)
		}
		if err := get("old")(t.Context(), f); tc.holds != nil && err != nil {
			t.Errorf("%s: the next call: %v", tc.name, err)
		}
	}
}

func TestDoneDoesNotHideTheRealError(t *testing.T) {
	f := faulty.New(mem.New(), faulty.Plan{{Call: faulty.Put, Prefix: "k", At: 1, Err: syscall.EIO, Done: true}})
	if err := f.Put(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), "k"); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
}

func TestReads(t *testing.T) {
	object := []byte("0123456789")
	flipped := func(i int) string {
		p := bytes.Clone(object)
		p[i] ^= 0xff
		return string(p)
	}
	for _, tc := range []struct {
		name        string
		read        faulty.Read
		off, length int64
		want        string
		err         error
	}{
		{"flip the first byte", faulty.Flip(0), 0, 10, flipped(0), nil},
		{"flip the last byte", faulty.Flip(9), 0, 10, flipped(9), nil},
		{"flip in the middle, read from there", faulty.Flip(4), 4, 2, flipped(4)[4:6], nil},
		{"flip before what is read", faulty.Flip(3), 4, 2, "45", nil},
		{"flip behind what is read", faulty.Flip(6), 4, 2, "45", nil},
		{"flip, read across the end", faulty.Flip(9), 8, 5, flipped(9)[8:], io.EOF},
		{"truncate to nothing", faulty.Truncate(0), 0, 3, "", io.EOF},
		{"truncate, read before", faulty.Truncate(5), 1, 4, "1234", nil},
		{"truncate, read across", faulty.Truncate(5), 1, 5, "1234", io.EOF},
		{"truncate, read from there", faulty.Truncate(5), 5, 1, "", io.EOF},
		{"truncate, read behind", faulty.Truncate(5), 8, 1, "", io.EOF},
		{"truncate to the size", faulty.Truncate(10), 8, 2, "89", nil},
		{"short by one", faulty.Short(2, syscall.EIO), 1, 3, "12", syscall.EIO},
		{"not short", faulty.Short(2, syscall.EIO), 1, 2, "12", nil},
		{"short of everything", faulty.Short(0, io.ErrUnexpectedEOF), 1, 3, "", io.ErrUnexpectedEOF},
	} {
		below := mem.New()
		if err := below.Put(t.Context(), "k", object); err != nil {
			t.Fatal(err)
		}
		f := faulty.New(below, faulty.Plan{{Call: faulty.Get, Times: 1, Read: tc.read}})
		p := make([]byte, tc.length)
		n, err := f.Get(t.Context(), "k", p, tc.off)
		if string(p[:n]) != tc.want || err != tc.err {
			t.Errorf("%s: %q, %v, want %q, %v", tc.name, p[:n], err, tc.want, tc.err)
		}
		q := make([]byte, len(object))
		if _, err := f.Get(t.Context(), "k", q, 0); err != nil || !bytes.Equal(q, object) {
			t.Errorf("%s: the object itself was changed: %q, %v", tc.name, q, err)
		}
	}
}

func TestGateKeepsAPutWaitingAndThenLetsItSucceed(t *testing.T) {
	gate := faulty.NewGate()
	below := mem.New()
	f := faulty.New(below, faulty.Plan{{Call: faulty.Put, Gate: gate}})
	c, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() { answer <- f.Put(c, "k", []byte("x")) }()
	<-gate.Arrived()
	cancel()
	if got := keys(t, below); len(got) != 0 {
		t.Errorf("%v while the gate is closed", got)
	}
	gate.Open()
	gate.Open()
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if got := keys(t, below); !got["k"] {
		t.Errorf("%v after it was opened", got)
	}
}

func TestLateCallsLandInTheirOrder(t *testing.T) {
	below := mem.New()
	f := faulty.New(below, faulty.Plan{{Prefix: "late/", Times: 3, Err: syscall.ETIMEDOUT, Late: true}})
	part := []byte("mine")
	for _, err := range []error{
		f.Put(t.Context(), "late/a", part),
		f.Put(t.Context(), "late/b"),
		f.Delete(t.Context(), "late/b"),
	} {
		if !errors.Is(err, syscall.ETIMEDOUT) {
			t.Error(err)
		}
	}
	copy(part, "used")
	if got := keys(t, below); len(got) != 0 {
		t.Errorf("%v before they land", got)
	}
	if err := f.Land(t.Context()); err != nil {
		t.Error(err)
	}
	if got := fmt.Sprint(below.Log()); got != fmt.Sprint([]mem.Op{
		{Key: "late/a", Data: []byte("mine")}, {Key: "late/b"}, {Key: "late/b", Deleted: true},
	}) {
		t.Error(got)
	}
	if err := f.Land(t.Context()); err != nil || len(below.Log()) != 3 {
		t.Errorf("landed twice: %v", err)
	}
}

func TestALatePutDoesNotReplaceAnEarlierOne(t *testing.T) {
	f := faulty.New(mem.New(), faulty.Plan{{Call: faulty.Put, Err: syscall.ETIMEDOUT, Late: true}})
	if err := f.Put(t.Context(), "k", []byte("late")); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatal(err)
	}
	if err := f.Put(t.Context(), "k", []byte("fence")); err != nil {
		t.Fatal(err)
	}
	if err := f.Land(t.Context()); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
}

func put(key string) func(context.Context, store.Backend) error {
	return func(c context.Context, b store.Backend) error { return b.Put(c, key, []byte(key)) }
}

func remove(key string) func(context.Context, store.Backend) error {
	return func(c context.Context, b store.Backend) error { return b.Delete(c, key) }
}

func get(key string) func(context.Context, store.Backend) error {
	return func(c context.Context, b store.Backend) error {
		_, err := b.Get(c, key, make([]byte, len(key)), 0)
		return err
	}
}

func list(c context.Context, b store.Backend) error {
	return b.List(c, "", func(string, int64) error { return nil })
}

func sync(key string) func(context.Context, store.Backend) error {
	return func(c context.Context, b store.Backend) error { return b.(store.Syncer).Sync(c, key) }
}

func keys(t *testing.T, b store.Backend) map[string]bool {
	t.Helper()
	got := map[string]bool{}
	if err := b.List(t.Context(), "", func(key string, _ int64) error { got[key] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	return got
}

func set(keys []string) map[string]bool {
	s := map[string]bool{}
	for _, k := range keys {
		s[k] = true
	}
	return s
}
