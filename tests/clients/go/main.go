// Go's net/http with its default client: JSON, and an upload.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	base := os.Args[1]
	weather, err := http.Get(base + "/weather?city=Paris")
	check(weather, err, `"city":"Paris"`)
	upload, err := http.Post(base+"/upload", "text/plain", strings.NewReader(strings.Repeat("x", 100_000)))
	check(upload, err, `"received":100000`)
	fmt.Println("done")
}

func check(response *http.Response, err error, part string) {
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		log.Fatal(err)
	}
	if response.StatusCode != http.StatusOK || !strings.Contains(string(body), part) {
		log.Fatal(response.Status, " ", string(body))
	}
}
