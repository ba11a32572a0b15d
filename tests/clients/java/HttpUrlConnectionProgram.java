// Java's java.net.HttpURLConnection: JSON, and an upload.
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;

public class HttpUrlConnectionProgram {
    public static void main(String[] arguments) throws Exception {
        String base = arguments[0];
        HttpURLConnection get = (HttpURLConnection) new URL(base + "/weather?city=Paris").openConnection();
        check(get, "\"city\":\"Paris\"");
        HttpURLConnection post = (HttpURLConnection) new URL(base + "/upload").openConnection();
        post.setRequestMethod("POST");
        post.setDoOutput(true);
        post.getOutputStream().write(new byte[100_000]);
        check(post, "\"received\":100000");
        System.out.println("done");
    }

    private static void check(HttpURLConnection connection, String part) throws Exception {
        try (InputStream body = connection.getInputStream()) {
            String text = new String(body.readAllBytes(), StandardCharsets.UTF_8);
            if (connection.getResponseCode() != 200 || !text.contains(part)) {
                throw new IllegalStateException(connection.getResponseCode() + " " + text);
            }
        }
    }
}
