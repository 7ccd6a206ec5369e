package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"backy/store"
)

// scriptCommands are what scripts have beyond testscript's own:
//
//	exits CODE PROGRAM ARG...   run it and demand that exit code
//	data FILE SIZE [SEED]       write random bytes, the same for one seed
//	poke FILE OFFSET TEXT       overwrite bytes
//	flip FILE OFFSET            change one byte, from the end where negative
//	json PATH [VALUE]           the last stdout is one JSON document that has it
//	reformat FILE KEY VALUE     change a repository's parameters, with a right checksum
//	same FILE FILE              compare two files of any content
//	until PROGRAM ARG...        run it again and again until it succeeds
//	mounting SCRIPT             run a shell script that may mount
var scriptCommands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits":    scriptExits,
	"data":     scriptData,
	"poke":     scriptPoke,
	"flip":     scriptFlip,
	"json":     scriptJSON,
	"reformat": scriptReformat,
	"same":     scriptSame,
	"until":    scriptUntil,
	"mounting": scriptMounting,
}

// setupScript gives a script a home of its own, and keeps the caller's choice
// of a repository or a cluster out.
func setupScript(e *testscript.Env) error {
	home := filepath.Join(e.WorkDir, ".home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	e.Setenv("HOME", home)
	e.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	e.Setenv("TZ", "UTC")
	return nil
}

func scriptExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptData(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: data FILE SIZE [SEED]")
	}
	size, err := parseSize(args[1])
	ts.Check(err)
	var seed [32]byte
	if len(args) == 3 {
		copy(seed[:], args[2])
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = io.CopyN(f, rand.NewChaCha8(seed), size)
	ts.Check(errors.Join(err, f.Close()))
}

func scriptPoke(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: poke FILE OFFSET TEXT")
	}
	offset, err := parseSize(args[1])
	ts.Check(err)
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	_, err = f.WriteAt([]byte(args[2]), offset)
	ts.Check(errors.Join(err, f.Close()))
}

func scriptFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	offset, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	files, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	if len(files) == 0 {
		ts.Fatalf("no file %s", args[0])
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		ts.Check(err)
		at := offset
		if at < 0 {
			at += int64(len(content))
		}
		content[at] ^= 0x40
		ts.Check(os.WriteFile(name, content, 0o600))
	}
}

// scriptJSON checks what the last program printed. A path is keys and indices
// with dots between; "count" is a list's length.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: json PATH [VALUE]")
	}
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	decoder.UseNumber()
	var document map[string]any
	ts.Check(decoder.Decode(&document))
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		ts.Fatalf("stdout goes on after the document: %v", err)
	}
	got, found := jsonAt(document, strings.Split(args[0], "."))
	matches := found && (len(args) == 1 || fmt.Sprint(got) == args[1])
	if matches == neg {
		ts.Fatalf("%s: got %v (found: %v)", args[0], got, found)
	}
}

func jsonAt(v any, path []string) (any, bool) {
	if len(path) == 0 {
		return v, true
	}
	switch v := v.(type) {
	case map[string]any:
		next, ok := v[path[0]]
		if !ok {
			return nil, false
		}
		return jsonAt(next, path[1:])
	case []any:
		if path[0] == "count" {
			return len(v), len(path) == 1
		}
		i, err := strconv.Atoi(path[0])
		if err != nil || i < 0 || i >= len(v) {
			return nil, false
		}
		return jsonAt(v[i], path[1:])
	}
	return nil, false
}

// scriptReformat changes a value in a backy.json: a JSON object of its type, the
// checksum of its body, and the body.
func scriptReformat(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: reformat FILE KEY VALUE")
	}
	name := ts.MkAbs(args[0])
	content, err := os.ReadFile(name)
	ts.Check(err)
	var object struct {
		Type string          `json:"type"`
		Sum  store.Checksum  `json:"blake3"`
		Body json.RawMessage `json:"body"`
	}
	ts.Check(json.Unmarshal(content, &object))
	var body map[string]json.RawMessage
	ts.Check(json.Unmarshal(object.Body, &body))
	if body[args[1]] == nil {
		ts.Fatalf("%s has no %s", args[0], args[1])
	}
	body[args[1]] = json.RawMessage(args[2])
	object.Body, err = json.Marshal(body)
	ts.Check(err)
	object.Sum = store.Sum(object.Body)
	content, err = json.Marshal(object)
	ts.Check(err)
	ts.Check(os.WriteFile(name, content, 0o600))
}

func scriptSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s (%d bytes) and %s (%d bytes): same is %v", args[0], len(a), args[1], len(b), !neg)
	}
}

// untilLimit is how long something may take that is going to happen.
const untilLimit = 60 * time.Second

func scriptUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until PROGRAM ARG...")
	}
	for start := time.Now(); ts.Exec(args[0], args[1:]...) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > untilLimit {
			ts.Fatalf("not within %s", untilLimit)
		}
	}
}

// scriptMounting runs a shell script in a mount namespace of its own, so that
// nothing stays mounted.
func scriptMounting(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: mounting SCRIPT")
	}
	line := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		line = append(line, "--map-root-user")
	}
	line = append(line, "sh", "-eux", args[0])
	if err := ts.Exec(line[0], line[1:]...); err != nil {
		ts.Fatalf("%v", err)
	}
}
