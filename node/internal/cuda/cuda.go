package cuda

// Options configure a Backend.
type Options struct {
	// Device is the ordinal of the GPU.
	Device int
	// MemoryBytes bounds what is taken of the device's memory. Default 0, what
	// there is.
	MemoryBytes int64
	// ReserveBytes is asked of the driver at once, as it was planned for what
	// is to be done; more is asked for where that is not enough.
	ReserveBytes int64
	// Float32 keeps activations in 32 bits where BF16 would be used: twice the
	// memory, less speed, results that can be compared with those of a
	// processor.
	Float32 bool
}
