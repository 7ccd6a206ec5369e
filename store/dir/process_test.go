package dir

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
)

// The test binary runs itself as other processes: role names what such a
// process does, place the folder that it does it in.
const (
	roleVar  = "BACKY_TEST_ROLE"
	placeVar = "BACKY_TEST_PLACE"
)

var roles = map[string]func(place string) error{"race": raceRole}

func TestMain(m *testing.M) {
	name := os.Getenv(roleVar)
	if name == "" {
		flag.Set("rapid.checks", "3000") // a power cut in memory is cheap; the command line has the last word
		os.Exit(m.Run())
	}
	if err := roles[name](os.Getenv(placeVar)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func inProcess(t *testing.T, role, place string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), roleVar+"="+role, placeVar+"="+place)
	return cmd
}

const raceKeys = 200

func raceKey(i int) string { return fmt.Sprintf("race/%d/k", i) }

// raceRole waits for stdin to end, then puts keys that others put too, each
// beside an object that it deletes again, so that folders come and go. It
// prints the keys that it won.
func raceRole(place string) error {
	d, err := Open(place)
	if err != nil {
		return err
	}
	if _, err := io.ReadAll(os.Stdin); err != nil {
		return err
	}
	c := context.Background()
	mine := []byte(fmt.Sprint(os.Getpid()))
	for i := range raceKeys {
		neighbour := fmt.Sprintf("race/%d/%s", (i+1)%raceKeys, mine)
		if err := d.Put(c, neighbour); err != nil {
			return err
		}
		switch err := d.Put(c, raceKey(i), mine, mine); {
		case err == nil:
			fmt.Println(raceKey(i))
		case !errors.Is(err, fs.ErrExist):
			return err
		}
		if err := d.Delete(c, neighbour); err != nil {
			return err
		}
	}
	return nil
}

func TestOneOfManyProcessesWins(t *testing.T) {
	const processes = 4
	d := newDir(t)
	start := make([]io.Closer, processes)
	printed := make([]bytes.Buffer, processes)
	talk := make([]bytes.Buffer, processes)
	cmds := make([]*exec.Cmd, processes)
	for i := range processes {
		cmds[i] = inProcess(t, "race", d.root)
		cmds[i].Stdout, cmds[i].Stderr = &printed[i], &talk[i]
		stdin, err := cmds[i].StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		start[i] = stdin
		if err := cmds[i].Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range start {
		s.Close()
	}
	winner := map[string]string{}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, &talk[i])
		}
		for key := range strings.FieldsSeq(printed[i].String()) {
			if winner[key] != "" {
				t.Errorf("%s was won twice", key)
			}
			winner[key] = strings.Repeat(fmt.Sprint(cmd.Process.Pid), 2)
		}
	}
	files, temps := onDisk(t, d)
	if len(winner) != raceKeys || len(files) != raceKeys || temps != 0 {
		t.Errorf("%d of %d keys were won, %d objects, %d temporary files", len(winner), raceKeys, len(files), temps)
	}
	for key, content := range files {
		if winner[key] != content {
			t.Errorf("%s holds %q, was won by %q", key, content, winner[key])
		}
	}
}

// TestKilledProcess kills processes with SIGKILL while they put, and sees that
// the locks died with them.
func TestKilledProcess(t *testing.T) {
	d := newDir(t)
	var wg sync.WaitGroup
	for range 8 {
		cmd := inProcess(t, "race", d.root)
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil { // stdin is empty: it begins at once
			t.Fatal(err)
		}
		wg.Go(func() {
			io.ReadFull(stdout, make([]byte, 40)) // a few keys won, or its end
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	wg.Wait()
	files, temps := onDisk(t, d)
	removed, err := d.Sweep(t.Context(), 1)
	if err != nil || removed != temps {
		t.Errorf("%d of %d temporary files swept, %v", removed, temps, err)
	}
	for path, content := range files {
		if half := len(content) / 2; content[:half] != content[half:] {
			t.Errorf("%s holds %q", path, content)
		}
	}
	if left, temps := onDisk(t, d); len(left) != len(files) || temps != 0 {
		t.Errorf("%d objects of %d and %d temporary files after the sweep", len(left), len(files), temps)
	}
}
