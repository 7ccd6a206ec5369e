package store

// ImageID is what an RBD image is known by, whatever it is called: two images
// are the same only if all of it is.
type ImageID struct {
	Cluster string // fsid
	PoolID  int64
	Image   string // the image's id
}

// ID is that of the image that the level was read from.
func (o *RBDOrigin) ID() ImageID { return ImageID{o.Cluster, o.PoolID, o.ImageID} }

// Of reports whether the level was read from an image, by its id. The zero ID
// stands for what is no RBD image: files, devices, pipes.
func (l *Level) Of(id ImageID) bool {
	if l.Origin.RBD == nil {
		return id == ImageID{}
	}
	return l.Origin.RBD.ID() == id
}
