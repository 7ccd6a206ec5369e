package rbd

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"backy/store"
)

// layout reads how the image is laid out.
func (im *image) layout(ctx context.Context) (store.RBDLayout, error) {
	return on(ctx, im, "ask for the layout", func(i *rbd.Image) (store.RBDLayout, error) {
		var l store.RBDLayout
		info, err := i.Stat()
		if err != nil {
			return l, err
		}
		l.Order = info.Order
		if l.StripeUnit, err = i.GetStripeUnit(); err != nil {
			return l, err
		}
		if l.StripeCount, err = i.GetStripeCount(); err != nil {
			return l, err
		}
		bits, err := i.GetFeatures()
		if err != nil {
			return l, err
		}
		l.Features = featureNames(bits)
		if bits&rbd.FeatureDataPool == 0 {
			return l, nil
		}
		pool, err := i.GetDataPoolID()
		if err != nil {
			return l, err
		}
		l.DataPool, err = im.conn.rados.GetPoolByID(pool)
		return l, err
	})
}

// featureNames are the features by their names, sorted, without those that
// are a passing state of the image rather than a choice.
func featureNames(bits uint64) []string {
	set := rbd.FeatureSet(bits &^ (rbd.FeatureOperations | rbd.FeatureMigrating))
	names := set.Names()
	slices.Sort(names)
	return names
}

// hasFastDiff reports whether the features for fast diff are on.
func hasFastDiff(l store.RBDLayout) bool {
	return slices.Contains(l.Features, rbd.FeatureNameObjectMap) && slices.Contains(l.Features, rbd.FeatureNameFastDiff)
}

// period is the number of bytes after which the mapping of the image's bytes to
// objects begins anew: one object, or with striping one set of objects. What
// librbd is asked about is aligned to it.
func period(l store.RBDLayout) int64 {
	return int64(1) << l.Order * int64(max(l.StripeCount, 1))
}

// createImage makes an image of a recorded layout, of the cluster's default
// layout where that is the zero one.
func (c *Conn) createImage(ctx context.Context, spec Spec, size int64, l store.RBDLayout) error {
	what := fmt.Sprintf("create %s of %d bytes", spec, size)
	_, err := inPool(ctx, c, spec, what, func(io *rados.IOContext) (struct{}, error) {
		options := rbd.NewRbdImageOptions()
		defer options.Destroy()
		if err := setLayout(options, l, spec.Pool); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, rbd.CreateImage(io, spec.Image, uint64(size), options)
	})
	return err
}

// setLayout sets each option that shapes an image, also to what means none: the
// defaults of the client's ceph.conf and of the pool go for those that are not set.
func setLayout(options *rbd.ImageOptions, l store.RBDLayout, pool string) error {
	if l.Order == 0 {
		return nil
	}
	unit, count := uint64(1)<<l.Order, uint64(1)
	if striped(l) {
		unit, count = l.StripeUnit, l.StripeCount
	}
	const journalOrder, journalSplay = 24, 4 // librbd's own defaults
	dataPool := l.DataPool
	if dataPool == "" {
		dataPool = pool // the image's own stands for none
	}
	features := rbd.FeatureSetFromNames(l.Features) &^ rbd.FeatureSet(rbd.FeatureStripingV2|rbd.FeatureDataPool)
	for _, o := range []struct {
		key   rbd.ImageOption
		value uint64
	}{
		{rbd.ImageOptionFormat, 2},
		{rbd.ImageOptionOrder, uint64(l.Order)},
		{rbd.ImageOptionFeatures, uint64(features)},
		{rbd.ImageOptionStripeUnit, unit},
		{rbd.ImageOptionStripeCount, count},
		{rbd.ImageOptionJournalOrder, journalOrder},
		{rbd.ImageOptionJournalSplayWidth, journalSplay},
	} {
		if err := options.SetUint64(o.key, o.value); err != nil {
			return err
		}
	}
	if err := options.SetString(rbd.ImageOptionJournalPool, pool); err != nil {
		return err
	}
	return options.SetString(rbd.ImageOptionDataPool, dataPool)
}

// striped tells whether the layout differs from one object after the other.
func striped(l store.RBDLayout) bool {
	return l.StripeCount > 1 || l.StripeUnit != 0 && l.StripeUnit != 1<<l.Order
}

// differences tells in words where a layout is not the one asked for.
func differences(want, got store.RBDLayout) []string {
	var d []string
	note := func(what string, want, got any) { d = append(d, fmt.Sprintf("%s %v instead of %v", what, got, want)) }
	if want.Order != got.Order {
		note("object order", want.Order, got.Order)
	}
	if striped(want) != striped(got) || striped(want) && (want.StripeUnit != got.StripeUnit || want.StripeCount != got.StripeCount) {
		note("striping (count × unit)", fmt.Sprint(want.StripeCount, "×", want.StripeUnit), fmt.Sprint(got.StripeCount, "×", got.StripeUnit))
	}
	if !slices.Equal(want.Features, got.Features) {
		note("features", strings.Join(want.Features, ","), strings.Join(got.Features, ","))
	}
	if want.DataPool != got.DataPool {
		note("data pool", orNone(want.DataPool), orNone(got.DataPool))
	}
	return d
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// withoutDataPool is the layout with the data in the image's own pool.
func withoutDataPool(l store.RBDLayout) store.RBDLayout {
	l.DataPool = ""
	l.Features = slices.DeleteFunc(slices.Clone(l.Features), func(f string) bool { return f == rbd.FeatureNameDataPool })
	return l
}
