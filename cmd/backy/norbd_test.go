package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWithoutLibrbd builds backy without cgo: it does all but images, and says
// so when asked for one.
func TestWithoutLibrbd(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "backy")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, []byte("some bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	const without = "without librbd"
	for _, tt := range []struct {
		line string
		code int
		want string
	}{
		{"version", 0, without},
		{"backup image repo/image", 0, "image level 1"},
		{"ls repo/image", 0, "image"},
		{"scrub repo/image -s image", 0, "0 damaged"},
		{"restore repo/image out", 0, "restored to out"},
		{"backup rbd:pool/image repo/image", 1, without},
		{"backup rbd:pool/image fresh/image", 1, without},
		{"restore repo/image rbd:pool/image", 1, without},
		{"scrub repo/image -s rbd:pool/image", 1, without},
	} {
		cmd := exec.Command(binary, strings.Fields(tt.line)...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if got := cmd.ProcessState.ExitCode(); got != tt.code || !strings.Contains(string(out), tt.want) {
			t.Errorf("backy %s: exit code %d, want %d, and %q in:\n%s", tt.line, got, tt.code, tt.want, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "fresh")); err == nil {
		t.Error("a source that cannot be read made a repository")
	}
}
