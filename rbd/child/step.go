package child

// AtStep is called before each call into librbd, with what it is about to do. It is
// a seam for tests, that crash or hang there.
var AtStep = func(what string) {}
