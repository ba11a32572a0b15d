// Java's java.net.http.HttpClient: HTTP/2 where it can, JSON and an upload.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;

public class HttpClientProgram {
    public static void main(String[] arguments) throws Exception {
        String base = arguments[0];
        HttpClient client = HttpClient.newHttpClient();
        HttpRequest get = HttpRequest.newBuilder(URI.create(base + "/weather?city=Paris")).build();
        check(client.send(get, BodyHandlers.ofString()), "\"city\":\"Paris\"");
        HttpRequest post = HttpRequest.newBuilder(URI.create(base + "/upload"))
            .POST(BodyPublishers.ofString("x".repeat(100_000)))
            .build();
        check(client.sendAsync(post, BodyHandlers.ofString()).join(), "\"received\":100000");
        System.out.println("done");
    }

    private static void check(HttpResponse<String> response, String part) {
        if (response.statusCode() != 200 || !response.body().contains(part)) {
            throw new IllegalStateException(response.statusCode() + " " + response.body());
        }
    }
}
