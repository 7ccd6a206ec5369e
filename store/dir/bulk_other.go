//go:build unix && !linux

package dir

// dropCache does nothing: there is no way to ask for it that all kernels have.
func dropCache(openFile, int64, int64) {}
