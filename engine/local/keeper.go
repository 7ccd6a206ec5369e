package local

import (
	"os"
	"os/exec"
	"syscall"
)

// keeper is a process that leads a process group and kills it when this process
// dies, however that happens: it then reads the end of a pipe. As long as it is
// not dismissed, the group's number cannot come to name somebody else.
type keeper struct {
	cmd  *exec.Cmd
	hold *os.File
}

// keeperScript hears no signal that is sent to the group to end it, but SIGKILL.
const keeperScript = `trap "" TERM HUP INT QUIT; read -r _ || kill -KILL 0`

func startKeeper() (*keeper, error) {
	end, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer end.Close() // the keeper has its own
	cmd := exec.Command("sh", "-c", keeperScript)
	cmd.Stdin = end
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		hold.Close()
		return nil, err
	}
	return &keeper{cmd, hold}, nil
}

// group is the number of the process group.
func (g *keeper) group() int { return g.cmd.Process.Pid }

// dismiss ends the keeper alone. Errors are those of one that was killed with its
// group, which is as good.
func (g *keeper) dismiss() {
	_, _ = g.hold.WriteString("\n")
	_ = g.hold.Close()
	_ = g.cmd.Wait()
}
