package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/store"
)

// gcFlags are those of gc alone.
type gcFlags struct {
	dryRun  bool
	maxWait durationValue

	removing []store.Removing // before a dry run
}

func (p *program) gcCommand() *cli.Command {
	var f gcFlags
	return &cli.Command{
		Name:      "gc",
		Usage:     "give back the space of removed levels",
		ArgsUsage: "[BACKUPDIR]",
		Description: `Deletes packs that no level needs, and writes those anew of which little is
needed. Backups go on meanwhile; gc waits for the ones that had begun before
it, and --max-wait leaves what they may need to the next gc. One that was
interrupted is finished by the next. BACKUPDIR may also be given by -b; else
it is the repository at or above the current folder.`,
		Flags: []cli.Flag{
			&cli.BoolFlag{
				Name: "dry-run", Aliases: []string{"n"}, DisableDefaultText: true, Destination: &f.dryRun,
				Usage: "only say what would be given back",
			},
			&cli.GenericFlag{
				Name: "max-wait", Value: &f.maxWait,
				Usage: "wait at most `TIME` for backups (default: for ever)",
			},
			metricsFlag(&p.metrics),
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1); err != nil {
				return err
			}
			p.metrics.known = true // it is about no names
			repo, err := p.openGiven(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			return p.gc(c.Context, repo, f)
		},
	}
}

// openGiven opens the repository that an argument names, or -b, or the nearest
// at or above the current folder.
func (p *program) openGiven(ctx context.Context, arg string) (*store.Repository, error) {
	folder := p.common.backupDir
	if arg != "" {
		if folder != "" && folder != arg {
			return nil, usagef("BACKUPDIR is given twice: %s and %s", folder, arg)
		}
		folder = arg
	}
	at, err := locateNearest(folder)
	if err != nil {
		return nil, err
	}
	return p.open(ctx, at)
}

func (p *program) gc(ctx context.Context, repo *store.Repository, f gcFlags) error {
	var done store.GCProgress
	var shown engine.Progress
	var report store.GCReport
	err := p.watchGC("gc", &done, &shown, func() (err error) {
		report, err = repo.GC(ctx, store.GCOptions{
			DryRun: f.dryRun, Removing: f.removing, MaxWait: time.Duration(f.maxWait), Progress: &done,
			Waiting: func(who []string) { p.talk.say("gc: waiting for %s", strings.Join(who, ", ")) },
		})
		return err
	})
	p.report.GC = &report
	if err != nil {
		return p.maybeFull(err)
	}
	p.talk.with("deleted", report.Deleted, "rewritten", report.Rewritten, "freed", report.Freed).say("gc: %s", gcSummary(report, f.dryRun))
	return nil
}

// gcAfter collects behind other work. Where another gc is at work, that one does
// it: it waits for the backups that had begun, and the next gc for this one's.
func (p *program) gcAfter(ctx context.Context, repo *store.Repository, f gcFlags) error {
	err := p.gc(ctx, repo, f)
	var busy *store.BusyError
	if errors.As(err, &busy) {
		p.report.GC = nil
		p.talk.say("gc: left to the one that is at work: %s", busy.Who)
		return nil
	}
	return err
}

// watchGC is watch for work that counts levels, while it looks at their maps,
// and then packs.
func (p *program) watchGC(title string, done *store.GCProgress, shown *engine.Progress, work func() error) error {
	text := func(n int64) string {
		if done.Sentences.Load() > 0 {
			return count(n, "pack")
		}
		return fmt.Sprintf("%s, %s", count(done.Nodes.Load()+done.Known.Load(), "map node"), count(n, "level"))
	}
	defer mirror(done, shown)()
	return p.watchCounting(title, shown, text, work)
}

// mirror shows a gc's progress as that of other work.
func mirror(done *store.GCProgress, shown *engine.Progress) (stop func()) {
	tick := time.NewTicker(barPoll)
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case <-ended:
				return
			case <-tick.C:
				total, now := done.Roots.Load(), done.Levels.Load()
				if n := done.Sentences.Load(); n > 0 {
					total, now = n, done.Executed.Load()
				}
				shown.Total.Store(total)
				shown.Done.Store(min(now, total))
			}
		}
	}()
	return func() {
		tick.Stop()
		close(ended)
	}
}

func gcSummary(r store.GCReport, dryRun bool) string {
	if len(r.Waiting) > 0 {
		return fmt.Sprintf("left to the next gc, since backups that began before are still at work: %s", strings.Join(r.Waiting, ", "))
	}
	verbs := [3]string{"deleted", "wrote anew", "gave back"}
	if dryRun {
		verbs = [3]string{"would delete", "would write anew", "would give back"}
	}
	return fmt.Sprintf("%d levels, %d map nodes read and %d known, %s %d packs, %s %d, %s %s",
		r.Levels, r.Nodes, r.Known, verbs[0], r.Deleted, verbs[1], r.Rewritten, verbs[2], bytesText(r.Freed))
}
