import org.junit.Test

class ShipTests extends BasePipelineTest {
  @Test
  void ships() {
    def script = loadScript('vars/ship.groovy')
    script.call(pushCredentialsId: 'only-in-a-test')
    helper.registerAllowedMethod('withCredentials', [List, Closure], null)
  }
}
