package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"backy/engine"
	"backy/hints"
	"backy/store"
)

// backupFlags are those of backup alone.
type backupFlags struct {
	hints       string // a file or "-"; "" for none
	diff        choiceValue
	diffGiven   bool
	size        sizeValue
	fromCommand string
	compression choiceValue
	gc          bool
	maxWait     durationValue
	limit       rateValue

	adopt  bool
	forget bool
	keep   keepValues

	freeze, thaw string
	freezeLimit  durationValue

	many manyFlags
}

func (p *program) backupCommand() *cli.Command {
	f := backupFlags{
		diff:        choiceValue{words: []string{"auto", "fast", "exact", "none"}, chosen: "auto"},
		compression: choiceValue{words: []string{"zstd", "s2", "none"}, chosen: "zstd"},
		freezeLimit: durationValue(30 * time.Second),
	}
	return &cli.Command{
		Name:      "backup",
		Usage:     "back up an image, a pool of them, a device, a file or a pipe",
		ArgsUsage: "SOURCE BACKUPNAME",
		UsageText: "backy backup [options] SOURCE BACKUPNAME\nbacky backup [options] rbd:POOL[/NAMESPACE] [BACKUPDIR]",
		Description: `Makes the next level of BACKUPNAME from SOURCE, and stores what changed.

SOURCE is rbd:POOL[/NAMESPACE]/IMAGE[@SNAP], a file, a block device, or "-"
for standard input.

--diff auto takes the fast diff, refined by the exact one, where it can be
trusted, else the exact one; none compares everything by checksum. HINTS name
what changed in a file or device: the output of "rbd diff", as JSON or as its
table, in a file, or "-" for standard input.

BACKUPNAME is a path such as /mnt/backups/web1: its repository is the nearest
folder at or above it that is one. Where there is none, the first backup
makes the parent folder one, if that is missing or empty. With -b, BACKUPNAME
is a name in BACKUPDIR, such as web1 or vms/web1.

rbd:POOL backs up every image of the pool's default namespace,
rbd:POOL/NAMESPACE those of a namespace, rbd:POOL/* those of all. Where an
image has a namespace's name, rbd:POOL/NAMESPACE/ is the namespace and
rbd:POOL//IMAGE the image. In BACKUPDIR they are POOL/[NAMESPACE/]IMAGE. An
image's metadata add to what the flags ask for:

  rbd image-meta set vms/web1 backy.exclude true

and backy.min-age, backy.keep-last, -daily and so on. A GLOB without a slash
is about IMAGE, one with a slash about POOL/[NAMESPACE/]IMAGE. Several nodes
may run the same backup at a time: each image is done by one of them. At the
end comes a table of what became of each.

A backup name belongs to one image. If the newest level is of another image
that still exists, or may exist, the backup is refused; --adopt takes the
name for this image. An image in the place of the old one (restored, or made
again under its name) goes on with its levels.

--freeze runs before a snapshot is made and --thaw after it, whatever
happens, with BACKY_POOL, BACKY_NAMESPACE, BACKY_IMAGE and BACKY_SPEC set.
What --freeze leaves running is ended before --thaw runs.`,
		Flags: slices.Concat([]cli.Flag{
			&cli.StringFlag{
				Name: "hints", Aliases: []string{"r", "rbd"}, Destination: &f.hints,
				Usage: "what changed: `HINTS` as \"rbd diff\" prints them",
			},
			&cli.GenericFlag{
				Name: "diff", Value: &f.diff, DefaultText: "auto",
				Usage: "`HOW`: auto, fast, exact or none",
			},
			&cli.GenericFlag{
				Name: "compression", Value: &f.compression, DefaultText: "zstd",
				Usage: "`HOW`: zstd, s2 (faster) or none",
			},
			&cli.GenericFlag{
				Name: "size", Value: &f.size,
				Usage: "for SOURCE -: fail unless `SIZE` bytes arrive",
			},
			&cli.StringFlag{
				Name: "from-command", Destination: &f.fromCommand,
				Usage: "for SOURCE -: read what `CMD` prints",
			},
			&cli.BoolFlag{
				Name: "gc", Destination: &f.gc, DisableDefaultText: true,
				Usage: "then collect removed levels: see backy gc",
			},
			&cli.GenericFlag{
				Name: "max-wait", Value: &f.maxWait,
				Usage: "with --gc: wait at most `TIME` for other backups",
			},
			limitFlag(&f.limit),
			metricsFlag(&p.metrics),
			&cli.BoolFlag{
				Name: "adopt", Destination: &f.adopt, DisableDefaultText: true,
				Usage: "take a name whose levels are another image's",
			},
			&cli.BoolFlag{
				Name: "forget", Destination: &f.forget, DisableDefaultText: true,
				Usage: "then remove what the --keep rules do not keep",
			},
			&cli.StringFlag{
				Name: "freeze", Category: freezeCategory, Destination: &f.freeze,
				Usage: "run `CMD` before a snapshot is made",
			},
			&cli.StringFlag{
				Name: "thaw", Category: freezeCategory, Destination: &f.thaw,
				Usage: "run `CMD` after it, whatever happened",
			},
			&cli.GenericFlag{
				Name: "freeze-limit", Category: freezeCategory, Value: &f.freezeLimit,
				Usage: "thaw after `TIME` without a snapshot",
			},
		}, f.many.flags(), f.keep.flags(keepCategory)),
		Action: func(c *cli.Context) error {
			f.diffGiven = c.IsSet("diff")
			f.many.note(c)
			return p.backupAny(c, f)
		},
	}
}

// limitFlag caps reading.
func limitFlag(limit *rateValue) cli.Flag {
	return &cli.GenericFlag{Name: "limit", Value: limit, Usage: "read at most `RATE`, as in 200MiB/s"}
}

// backupAny backs up one source, or all images of a pool.
func (p *program) backupAny(c *cli.Context, f backupFlags) error {
	least := 2
	if kindOf(c.Args().First()) == kindRBD {
		least = 1
	}
	if err := wantArgs(c, least, 2); err != nil {
		return err
	}
	if err := errors.Join(f.checkAlways(), f.check(c.Args().First())); err != nil {
		return err
	}
	source, at := c.Args().Get(0), c.Args().Get(1)
	p.metrics.source, p.metrics.backup = source, true
	if kindOf(source) == kindRBD {
		many, err := p.isMany(c.Context, source, c.NArg() == 2)
		if err != nil {
			return err
		}
		if many {
			return p.backupMany(c.Context, f, source, at)
		}
	}
	if len(f.many.given) > 0 {
		return usagef("--%s goes with rbd:POOL only, without an image", f.many.given[0])
	}
	if err := wantArgs(c, 2, 2); err != nil {
		return err
	}
	return p.backup(c.Context, f, source, at)
}

// checkAlways refuses flags that go with no source.
func (f backupFlags) checkAlways() error {
	if f.forget {
		if err := f.keep.check(); err != nil {
			return usagef("--forget: %w", err)
		}
	} else if f.keep != (keepValues{}) {
		return usagef("the --keep rules and --metadata-may-keep-less go with --forget")
	}
	if (f.freeze == "") != (f.thaw == "") {
		return usagef("--freeze and --thaw go together: what is frozen is to be thawed")
	}
	return f.many.check(f.limit)
}

func (p *program) backup(ctx context.Context, f backupFlags, sourceArg, backupName string) error {
	at, err := locate(p.common.backupDir, backupName)
	if err != nil {
		return p.maybeSwapped(err, "backup", sourceArg, backupName)
	}
	if at.name == "" {
		return withHint(usagef("%s is a folder: the backup's name in it is missing", at.dir),
			p.retyped(backupName, strings.TrimRight(backupName, "/")+"/NAME"))
	}
	if err := at.refusal(); err != nil {
		return p.maybeSwapped(err, "backup", sourceArg, backupName)
	}
	p.metrics.folder = at.dir
	p.metrics.about(nil, at.name)
	src, err := p.openSource(ctx, f, sourceArg, at)
	if err != nil {
		return p.maybePipe(p.maybeImage(err, sourceArg), f, sourceArg)
	}
	repo, err := p.openOrCreate(ctx, at)
	if err != nil {
		return err
	}
	p.metrics.about(repo, at.name)
	compression, err := store.ParseCompression(f.compression.chosen)
	if err != nil {
		return err
	}
	var progress engine.Progress
	var level store.Level
	err = p.watch("backup "+string(at.name), &progress, func() (err error) {
		level, err = engine.Backup(ctx, repo, at.name, src, engine.BackupOptions{
			Source: sourceArg, Compression: compression, Progress: &progress,
			Warn: p.talk.with("image", sourceArg, "name", at.name).warn,
			Rate: f.limit.rate(),
		})
		return err
	})
	if err != nil {
		return p.maybePipe(p.maybeAdopt(err), f, sourceArg)
	}
	p.report.Level = &level
	p.talk.with(append(levelFields(&level), "image", sourceArg, "name", level.Name)...).say("%s", backupSummary(level))
	p.talk.detail("%s, %s known from elsewhere in the repository", count(level.Stats.Chunks, "new chunk"), bytesText(level.Stats.Reused))
	rules := engine.RecordedRules(&level)
	for _, text := range rules.Warnings() {
		p.talk.with("image", sourceArg, "name", level.Name).warn("%s: %s", sourceArg, text)
	}
	if f.forget {
		if err := p.forgetAfter(ctx, repo, &level, &f.keep); err != nil {
			return err
		}
	}
	if !f.gc {
		return nil
	}
	return p.gcAfter(ctx, repo, gcFlags{maxWait: f.maxWait})
}

// forgetAfter applies a policy to a name that was backed up.
func (p *program) forgetAfter(ctx context.Context, repo *store.Repository, made *store.Level, k *keepValues) error {
	rules := engine.RecordedRules(made)
	forgotten, err := p.forgetName(ctx, repo, made.Name, k, engine.ForgetOptions{Made: made.Number, Rules: &rules})
	if err != nil {
		return fmt.Errorf("the level is there, but the policy was not applied: %w", err)
	}
	p.report.Forget = forgotten.Decisions
	for _, n := range forgotten.Removed() {
		p.talk.with("name", made.Name, "level_number", n).say("%s level %s: removed", made.Name, n)
	}
	return nil
}

// check refuses flags that do not go with the source's kind.
func (f backupFlags) check(sourceArg string) error {
	kind := kindOf(sourceArg)
	switch {
	case f.maxWait != 0 && !f.gc:
		return usagef("--max-wait goes with --gc only")
	case f.freeze != "" && (kind != kindRBD || strings.Contains(sourceArg, "@")):
		return usagef("--freeze and --thaw go with rbd: sources of which backy makes the snapshot")
	case kind == kindRBD && f.hints != "":
		return usagef("--hints does not go with rbd: sources, which backy diffs itself: see --diff")
	case kind != kindRBD && f.adopt:
		return usagef("--adopt goes with rbd: sources only: files, devices and pipes may take any name")
	case kind != kindRBD && f.diffGiven:
		return usagef("--diff goes with rbd: sources only; for files and devices, give what changed with --hints")
	case kind != kindPipe && f.size.given && !isFIFO(sourceArg):
		return usagef("--size goes with SOURCE - or a pipe only")
	case kind != kindPipe && f.fromCommand != "":
		return usagef("--from-command goes with SOURCE - only")
	case kind == kindPipe && f.hints == "-" && f.fromCommand == "":
		return usagef("standard input cannot be both SOURCE and HINTS")
	case f.hints != "" && (kind == kindPipe || isFIFO(sourceArg)):
		return usagef("--hints goes with files and devices only: a pipe is read from front to back")
	}
	return nil
}

// readHints reads what rbd diff printed; nil where no hints are given.
func (p *program) readHints(path string) ([]hints.Extent, error) {
	if path == "" {
		return nil, nil
	}
	var r io.Reader = p.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading hints: %w", err)
		}
		defer f.Close()
		r = f
	}
	extents, err := hints.Parse(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return extents, nil
}

// levelFields are those of a line of a log about a new level.
func levelFields(l *store.Level) []any {
	return []any{
		"level_number", l.Number, "size", l.Size, "read", l.Stats.Read, "changed", l.Stats.Changed, "stored", l.Stats.Stored,
		"diff", l.Origin.Diff, "seconds", l.Stats.Seconds,
	}
}

func backupSummary(l store.Level) string {
	how := map[string]string{
		store.DiffFast:      "fast diff",
		store.DiffExact:     "exact diff",
		store.DiffAllocated: "what is allocated",
		store.DiffHints:     "hints",
		store.DiffNone:      "all of it",
	}[l.Origin.Diff]
	base, mended := "", ""
	if l.Base != 0 {
		base = fmt.Sprintf(", compared with level %s", l.Base)
	}
	if l.Stats.Mended > 0 {
		mended = ", mended " + count(l.Stats.Mended, "chunk")
	}
	return fmt.Sprintf("%s level %s: %s, read %s (%s%s), changed %s, stored %s%s, %s",
		l.Name, l.Number, bytesText(l.Size), bytesText(l.Stats.Read), how, base,
		bytesText(l.Stats.Changed), bytesText(l.Stats.Stored), mended, secondsText(l.Stats.Seconds))
}

// maybeSwapped adds a hint where BACKUPNAME looks like the other argument.
func (p *program) maybeSwapped(err error, command, other, backupName string) error {
	swapped := kindOf(backupName) != kindFile
	if at, locateErr := locate(p.common.backupDir, other); locateErr == nil && at.exists && at.name != "" {
		swapped = true
	}
	if !swapped {
		return err
	}
	line := []string{}
	for _, w := range p.typed {
		switch w {
		case other:
			w = backupName
		case backupName:
			w = other
		}
		line = append(line, w)
	}
	var hinted *hintedError
	if errors.As(err, &hinted) {
		err = hinted.error
	}
	return &hintedError{err, shellLine(line)}
}

// maybeAdopt adds a hint if the backup name is another image's.
func (p *program) maybeAdopt(err error) error {
	if !isOthersName(err) {
		return err
	}
	return p.withFlag(err, "--adopt")
}
