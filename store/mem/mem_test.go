package mem_test

import (
	"testing"

	"backy/store"
	"backy/store/backendtest"
	"backy/store/mem"
)

func TestBackend(t *testing.T) {
	backendtest.Run(t, func(*testing.T) store.Backend { return mem.New() })
}
