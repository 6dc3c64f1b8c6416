package shard

// Limits on what is made and what is accepted; see FORMAT.md.
const (
	// ChunkBytes is the size of a leaf of an imported file, but for the last.
	ChunkBytes = 1 << 20
	// MaxBlockBytes is the largest block that is stored. It is what other
	// IPFS programs carry over bitswap.
	MaxBlockBytes = 2 << 20

	maxFileLinks    = 2048      // links of a file node that is accepted
	importFileLinks = 1024      // links of a file node that is made
	maxDirBytes     = 256 << 10 // above it kubo makes a HAMT, which is refused
	maxNameBytes    = 255
	maxDepth        = 32       // nodes from the root to a leaf
	maxPathBytes    = 1024     // of a path below the root
	maxEntries      = 1 << 18  // files and folders of one import or one folder written
	maxDAGBytes     = 1 << 50  // what a link may claim to lie below it
	maxBlocks       = 1 << 24  // distinct blocks of one walk
	maxMissing      = 1 << 22  // missing blocks that one walk lists
	cidBytes        = 36       // CIDv1, one-byte codec, sha2-256
	dagPB           = 0x70     // multicodec dag-pb
	rawCodec        = 0x55     // multicodec raw
	sha256Code      = 0x12     // multihash sha2-256
	sha256Len       = 32       // and its length
	maxConfigBytes  = 1 << 20  // config.json of a model
	maxIndexBytes   = 32 << 20 // model.safetensors.index.json
	maxReadmeBytes  = 64 << 10 // what is read of a README.md
	maxWeightFiles  = 4096
	maxHeaderBytes  = 256 << 20 // of all safetensors headers of a model
)
