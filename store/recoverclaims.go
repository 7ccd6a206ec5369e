package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// The claims of recoveries, one a number that they put back:
//
//	work/recover.<name>.<n>
//
// They outlive their run if that dies, and are gone when something stands at
// the number's commit key. They are no target of a fence: a late put of such a
// record puts what belongs there.
const recoverPrefix = workPrefix + "recover."

func recoverKey(name Name, n LevelNumber) string {
	return recoverPrefix + name.escape() + "." + n.String()
}

// claimAll takes the numbers of levels, those first that are free, and others for
// those that are not.
func (v *recovery) claimAll(ctx context.Context, lost []lostRecord) error {
	for _, taken := range []bool{false, true} {
		for i := range lost {
			if lost[i].Taken != taken {
				continue
			}
			if taken {
				if err := v.renumber(ctx, &lost[i]); err != nil {
					return err
				}
			}
			if err := v.claim(ctx, &lost[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// claim takes a number for its level. A claim that another recovery has left
// will do.
func (v *recovery) claim(ctx context.Context, l *lostRecord) error {
	r := v.gc.repo
	c := claim{
		Name: l.Name, Number: l.Number, Run: v.gc.run, Process: r.self,
		Started: r.clock().UTC(), Beat: v.gc.o.Beat.Seconds(),
	}
	err := r.putObject(ctx, recoverKey(l.Name, l.Number), "claim", &c)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("claim %s: %w", l.LostLevel, err)
	}
	return nil
}

// recoverClaims lists the numbers that recoveries have claimed: of a name, or
// of all where it is empty.
func (r *Repository) recoverClaims(ctx context.Context, name Name) (claimed []LostLevel, err error) {
	prefix := recoverPrefix
	if name != "" {
		prefix += name.escape() + "."
	}
	keys, err := r.list(ctx, prefix)
	for _, key := range keys {
		c, err := parseClaimKey(workPrefix + "claim." + strings.TrimPrefix(key, recoverPrefix))
		if err == nil && (name == "" || c.Name == name) {
			claimed = append(claimed, LostLevel{Name: c.Name, Number: c.Number})
		}
	}
	return claimed, err
}

func (r *Repository) dropRecoverClaims(ctx context.Context, mayDelete func(context.Context) error) error {
	claimed, err := r.recoverClaims(ctx, "")
	if err != nil {
		return err
	}
	for _, l := range claimed {
		decided, err := r.decided(ctx, l.Name, l.Number)
		if err != nil {
			return err
		}
		if !decided {
			continue
		}
		if err := r.deleteAll(ctx, []string{recoverKey(l.Name, l.Number)}, mayDelete); err != nil {
			return err
		}
	}
	return nil
}

// renumber gives a level whose number another run has the next one that is free.
func (v *recovery) renumber(ctx context.Context, lost *lostRecord) error {
	r := v.gc.repo
	last, err := r.lastNumber(ctx, lost.Name)
	if err != nil {
		return err
	}
	busy, err := r.claims(ctx)
	if err != nil {
		return err
	}
	for _, c := range busy {
		if c.Name == lost.Name {
			last = max(last, c.Number)
		}
	}
	var l Level
	if err := decodeObject(lost.record, "level", &l); err != nil {
		return err
	}
	l.Number = last + 1
	lost.Number = l.Number
	lost.record, err = encodeObject("level", &l)
	return err
}
