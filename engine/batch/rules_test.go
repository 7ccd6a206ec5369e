package batch_test

import (
	"strings"
	"testing"
	"time"

	"backy/engine"
	"backy/engine/batch"
)

func TestRules(t *testing.T) {
	run := engine.Keep{Last: 1, Daily: 7, Within: time.Hour}
	for _, tt := range []struct {
		metadata map[string]string
		exclude  bool
		keep     engine.Keep
		bad      string // in the one sentence; "": none
	}{
		{nil, false, run, ""},
		{map[string]string{"owner": "me", "conf_rbd_cache": "false", "backyard": "x"}, false, run, ""},
		{map[string]string{"backy.exclude": "true"}, true, run, ""},
		{map[string]string{"backy.exclude": "false"}, false, run, ""},
		{map[string]string{"backy.exclude": "yes, please"}, false, run, "backy.exclude"},
		{map[string]string{"backy.keep-daily": "14"}, false, engine.Keep{Last: 1, Daily: 14, Within: time.Hour}, ""},
		{map[string]string{"backy.keep-daily": "0", "backy.keep-yearly": "2"}, false, engine.Keep{Last: 1, Yearly: 2, Within: time.Hour}, ""},
		{map[string]string{"backy.keep-within": "3h"}, false, engine.Keep{Last: 1, Daily: 7, Within: 3 * time.Hour}, ""},
		{map[string]string{"backy.keep-within": "0"}, false, engine.Keep{Last: 1, Daily: 7}, ""},
		{map[string]string{"backy.keep-within": "long"}, false, run, "backy.keep-within"},
		{map[string]string{"backy.keep-daily": "-1"}, false, run, "backy.keep-daily"},
		{map[string]string{"backy.keep-fortnightly": "1"}, false, run, "no such key"},
		{map[string]string{"backy.freeze": "reboot"}, false, run, "no such key"},
	} {
		r, bad := batch.ParseRules(tt.metadata, time.ParseDuration)
		if r.Exclude != tt.exclude || r.Keep(run) != tt.keep {
			t.Errorf("%v: exclude %v, keep %+v", tt.metadata, r.Exclude, r.Keep(run))
		}
		if got := strings.Join(bad, "\n"); len(bad) > 1 || (tt.bad == "") != (got == "") || !strings.Contains(got, tt.bad) {
			t.Errorf("%v: %q, want %q in it", tt.metadata, bad, tt.bad)
		}
	}
	r, _ := batch.ParseRules(map[string]string{"backy.min-age": "6h"}, time.ParseDuration)
	if r.MinAge == nil || *r.MinAge != 6*time.Hour {
		t.Errorf("min-age: %v", r.MinAge)
	}
	if run.Daily != 7 {
		t.Error("an image's rules changed the run's")
	}
}
