package dataset

import "fmt"

// Template is how an instruction, perhaps with an input, becomes the text that
// a response continues. It is the same in training, evaluation and generation.
type Template int

// The templates. Their names are those of ParseTemplate.
const (
	// Alpaca is the prompt of Stanford Alpaca. It ends with "### Response:",
	// without a space or a line break.
	Alpaca Template = iota + 1
	// None is the instruction as it is; an input follows on a line of its own.
	None
	// Chat is the chat template of the model. An instruction is what a user
	// says, with the input behind an empty line.
	Chat
)

var templateNames = map[string]Template{"alpaca": Alpaca, "none": None, "chat": Chat}

// ParseTemplate returns the template of a name, as manifests, data sets and
// requests have it.
func ParseTemplate(name string) (Template, error) {
	t, ok := templateNames[name]
	if !ok {
		return 0, fmt.Errorf("template is %q, must be \"alpaca\", \"none\" or \"chat\"", name)
	}
	return t, nil
}

// String returns the name.
func (t Template) String() string {
	for name, v := range templateNames {
		if v == t {
			return name
		}
	}
	return fmt.Sprintf("template-%d", int(t))
}

// Prompt returns the text up to where the response begins; of Chat what the
// user says.
func (t Template) Prompt(instruction, input string) string {
	switch {
	case t == Alpaca && input != "":
		return "Below is an instruction that describes a task, paired with an input that provides further context. " +
			"Write a response that appropriately completes the request.\n\n" +
			"### Instruction:\n" + instruction + "\n\n### Input:\n" + input + "\n\n### Response:"
	case t == Alpaca:
		return "Below is an instruction that describes a task. " +
			"Write a response that appropriately completes the request.\n\n" +
			"### Instruction:\n" + instruction + "\n\n### Response:"
	case t == Chat && input != "":
		return instruction + "\n\n" + input
	case input != "":
		return instruction + "\n" + input
	}
	return instruction
}
