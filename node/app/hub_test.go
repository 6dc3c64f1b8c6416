package app

import "testing"

func TestHubSource(t *testing.T) {
	for dir, want := range map[string]string{
		"/home/me/.cache/huggingface/hub/models--meta-llama--Llama-3.2-1B/snapshots/4e20de36": "meta-llama/Llama-3.2-1B at 4e20de36",
		"/home/me/models/Llama-3.2-1B":      "",
		"/home/me/models--a--b/4e20de36":    "",
		"/home/me/models--gpt2/snapshots/1": "",
		"/":                                 "",
	} {
		if got := hubSource(dir); got != want {
			t.Errorf("hubSource(%q) = %q, want %q", dir, got, want)
		}
	}
}

func TestHubName(t *testing.T) {
	for source, want := range map[string]string{
		"meta-llama/Llama-3.2-1B at 4e20de36":               "meta-llama/Llama-3.2-1B",
		"meta-llama/Llama-3.2-1B":                           "meta-llama/Llama-3.2-1B",
		"https://huggingface.co/HuggingFaceTB/SmolLM2-135M": "HuggingFaceTB/SmolLM2-135M",
		"made by scripts/tinymodel":                         "",
		"https://example.org/a/b":                           "",
		"a/b/c":                                             "",
		"../../etc":                                         "",
		"":                                                  "",
	} {
		if got := hubName(source); got != want {
			t.Errorf("hubName(%q) = %q, want %q", source, got, want)
		}
	}
}
